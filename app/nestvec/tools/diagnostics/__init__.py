"""Looks at this machine and installation, and at where a graph really runs: for `nestvec doctor` and for reports."""
