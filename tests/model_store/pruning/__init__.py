"""Models with fewer tokens."""
