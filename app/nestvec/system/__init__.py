"""The machine and its operating system: CPUs, memory, files, drivers. Knows nothing of embeddings."""
