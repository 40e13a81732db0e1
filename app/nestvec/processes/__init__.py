"""Running processes: one for all, or a supervisor over HTTP fronts and the engine's own."""
