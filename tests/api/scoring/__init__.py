"""Tests of api/scoring."""
