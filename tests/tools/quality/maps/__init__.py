"""Tests of fitted maps."""
