"""What runs beside the server: quality reports, benchmarks, tuning, diagnostics. Used by the command line only."""
