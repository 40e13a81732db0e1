"""HTTP in, HTTP out: one file a dialect, shared behaviour written once. No vector maths here."""
