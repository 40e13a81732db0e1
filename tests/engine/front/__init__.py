"""Tests of engine/front."""
