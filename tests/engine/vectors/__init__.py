"""Tests of engine/vectors."""
