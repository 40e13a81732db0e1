"""Tests of engine/cache."""
