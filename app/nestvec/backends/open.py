"""Opens a graph with the backend that suits its options."""

from pathlib import Path

from nestvec.backends.cuda.open import open_on_gpu
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.types import Layout


def open_backend(path: Path, layout: Layout, options: BackendOptions) -> Backend:
    """Open a graph; the runtimes' modules are imported here, as `--help` has no use for them.

    Raises:
        FormatError: The graph cannot be read, or its inputs and outputs are not what the layout says.
        ModelMemoryError: It does not fit into the GPU's memory.
        ProviderError: The runtime or the device is missing, or does not start.
    """
    if options.provider == "cuda":
        return open_on_gpu(path, layout, options)
    if options.computes_bf16:
        from nestvec.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(path, layout, options)
    from nestvec.backends.onnx import OnnxBackend

    return OnnxBackend(path, layout, options)
