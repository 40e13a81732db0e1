"""A model's config.json, read into the fields that the families need."""
