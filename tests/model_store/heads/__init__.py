"""Tests of heads, against transformers and numpy."""
