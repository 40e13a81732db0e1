"""Tests of `nestvec.keys`."""
