"""Hostile requests and mutated files: what fuzzing finds."""
