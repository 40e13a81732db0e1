"""Layers of transformers as ONNX nodes: attention, norms, positions, arithmetic, heads."""
