"""Measures a server over HTTP, or the engine in this process."""
