"""Decoders that read pictures among the tokens of a text: a vision tower gives rows, which stand where pictures are."""
