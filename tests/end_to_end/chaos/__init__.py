"""Load, faults and kills against real servers, from fixed seeds."""
