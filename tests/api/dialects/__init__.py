"""Tests of api/dialects."""
