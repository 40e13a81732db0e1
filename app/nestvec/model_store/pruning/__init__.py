"""Copies of models whose token table holds what a corpus or a language needs."""
