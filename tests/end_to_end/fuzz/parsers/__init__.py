"""Targets by what their parsers read; `TARGETS` in each file, put together in `targets.py` above."""
