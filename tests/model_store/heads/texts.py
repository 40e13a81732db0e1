"""Texts of the cases, of words of the tiny vocabulary."""

TEXTS = [
    "alpha",
    "the red and the blue : gamma",
    "one two three four of a delta : beta",
]
PAIRS = [
    ("alpha beta", "the green one"),
    ("query", "a delta of two and three and four"),
    ("one two three", "red"),
]
