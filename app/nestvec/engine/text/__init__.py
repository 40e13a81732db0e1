"""Texts to token ids: tokenizing, truncation, windows, documents."""
