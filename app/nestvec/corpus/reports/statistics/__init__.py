"""Scores, intervals, tests and neighbours: pure numpy over arrays."""
