"""Heads: what follows an encoder, by its folder's files: nothing, dense layers, a classifier, terms, token vectors."""
