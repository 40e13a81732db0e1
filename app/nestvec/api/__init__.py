"""HTTP in, HTTP out: one file a dialect, and what dialects share written once. No vector maths here."""
