"""Nestvec: a self-hosted embedding inference server."""

__version__ = "0.1.0"
