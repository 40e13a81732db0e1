"""The engine as a Python library."""
