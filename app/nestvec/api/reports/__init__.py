"""Reports that callers ask for: read, made one at a time as bulk work, and kept for a while."""
