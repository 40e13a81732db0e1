"""Tests of the checks of open loads."""
