"""ONNX graphs as such: building, inputs, weights, external data, fusion."""
