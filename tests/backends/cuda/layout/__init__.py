"""Tests of backends/cuda/layout."""
