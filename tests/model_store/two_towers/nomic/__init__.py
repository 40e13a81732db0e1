"""nomic-embed-vision: its layers in plain numpy, held to the authors' published code."""
