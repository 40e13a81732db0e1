"""The reports, one file each: what it measures, and what it advises."""
