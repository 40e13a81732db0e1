"""Tests of ipc."""
