"""What runs on a GPU, tested without one: CUDA's packed attentions are written out in plain ops that any CPU runs."""
