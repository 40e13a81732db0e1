"""What stands behind encoders, against transformers."""
