"""Tests of `app/link`."""
