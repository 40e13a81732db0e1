"""The quality report: what was measured, what it recommends, and how it is written."""
