"""Scores, labels and comparisons that several dialects and routes share."""
