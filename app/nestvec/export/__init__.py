"""Safetensors to ONNX graphs, without any training framework."""
