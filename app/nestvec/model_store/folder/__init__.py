"""What a model folder's own files say."""
