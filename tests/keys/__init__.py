"""Tests of `app/keys`."""
