"""Pictures among the inputs of a call."""
