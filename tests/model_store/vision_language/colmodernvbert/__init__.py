"""ColModernVBERT against transformers."""
