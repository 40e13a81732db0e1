"""How fast, against whom: peers from PyPI, the same texts, interleaved rounds, ratios."""
