"""Running on a GPU: packed arrays in fixed memory, two batches on their way, captured launches, bounded memory."""
