"""Vector stores, each by its real library."""
