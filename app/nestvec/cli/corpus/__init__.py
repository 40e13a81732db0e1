"""Verbs over whole corpora: embed them, and search what was embedded."""
