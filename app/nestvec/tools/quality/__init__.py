"""Is the model still good: scores, data sets, and a run over HTTP."""
