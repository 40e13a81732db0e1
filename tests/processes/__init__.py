"""Tests of `app/serving`."""
