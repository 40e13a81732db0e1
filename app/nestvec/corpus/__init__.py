"""Whole files of texts to files of vectors, through the same engine as the server."""
