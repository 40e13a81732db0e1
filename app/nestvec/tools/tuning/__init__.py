"""Finds how a model runs fastest on this machine."""
