"""Metrics, a file a topic, and logs."""
