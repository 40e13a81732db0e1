"""Benchmarks of servers under an open load: requests come when they come, whatever became of those before."""
