"""Files and batch jobs."""
