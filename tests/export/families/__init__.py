"""Every architecture that the exporter knows, as a tiny model with random weights, compared with transformers."""
