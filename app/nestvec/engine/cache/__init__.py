"""The vector cache: raw vectors by token ids, in memory and in a SQLite file."""
