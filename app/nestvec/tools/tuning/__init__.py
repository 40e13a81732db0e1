"""Finds the settings with which a model runs fastest on this machine."""
