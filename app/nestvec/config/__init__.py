"""Settings: their names, units, defaults and ranges, and how they are read."""
