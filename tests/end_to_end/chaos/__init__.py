"""Everything at once, from a fixed seed."""
