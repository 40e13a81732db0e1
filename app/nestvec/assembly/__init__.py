"""The composition root: the only place that makes packages, backends, models and the service of settings."""
