"""Tests of engine/outputs."""
