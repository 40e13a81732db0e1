"""Tests of the OpenAPI document's models."""
