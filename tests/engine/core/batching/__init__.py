"""Tests of engine/core/batching."""
