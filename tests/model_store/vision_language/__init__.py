"""Decoders that read pictures."""
