"""Folders of models of two towers: what they say of pictures, of padding and of vectors, and what is built of it."""
