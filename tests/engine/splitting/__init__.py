"""Tests of engine/splitting."""
