"""Tests of model_store/sources."""
