"""Tests of api/batch."""
