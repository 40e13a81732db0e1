"""Tests of `nestvec.cli`."""
