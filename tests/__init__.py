"""Tests mirror the packages of `app/`; helpers that several share lie here."""
