"""Text in, vectors out. Knows no HTTP, no settings and no metrics library."""
