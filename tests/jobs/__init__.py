"""Tests of `nestvec.jobs`."""
