"""Suites across the whole server: real models, client SDKs, chaos, fuzzing."""
