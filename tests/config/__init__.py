"""Tests of `nestvec.config`."""
