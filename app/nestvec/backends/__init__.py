"""Everything that runs a graph: ONNX Runtime, OpenVINO, CUDA devices. The only importers of a runtime."""
