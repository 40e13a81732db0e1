"""Models of two towers, compared with what transformers computed of pictures and texts."""
