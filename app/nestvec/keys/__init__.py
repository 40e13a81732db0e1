"""API keys: who may call, what of, and how much."""
