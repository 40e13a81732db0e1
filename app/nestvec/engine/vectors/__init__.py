"""Model outputs to vectors: pooling, maps, truncation to dimensions, quantization. Pure numpy."""
