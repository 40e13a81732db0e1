"""Tests of model_store/folder."""
