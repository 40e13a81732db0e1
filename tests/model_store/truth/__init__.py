"""Folders that say things which change vectors: honoured as the reference libraries do, or refused by name."""
