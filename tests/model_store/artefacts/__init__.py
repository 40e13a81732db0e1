"""Tests of model_store/artefacts."""
