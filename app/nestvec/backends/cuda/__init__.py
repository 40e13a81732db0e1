"""Running graphs on a GPU: packed arrays in fixed memory, two batches in flight, CUDA graphs, bounded memory."""
