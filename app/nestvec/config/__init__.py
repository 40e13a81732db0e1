"""Settings: their names, units, defaults and ranges by topic, and how they are read."""
