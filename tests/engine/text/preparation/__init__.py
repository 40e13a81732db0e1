"""Tests of engine/text/preparation."""
