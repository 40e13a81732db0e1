"""Large weights in a file beside graphs, which several graphs may share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx
from onnx.external_data_helper import set_external_data

LEAST_BYTES: Final = 1024  # smaller ones stay in the graph
PAGE_BYTES: Final = 4096  # onnxruntime maps the file; for small weights a cache line does
LINE_BYTES: Final = 64
LEAST_ON_PAGES: Final = 65_536


def store_outside(
    weights: Mapping[str, onnx.TensorProto], path: Path
) -> dict[str, onnx.TensorProto]:
    """Write large weights to a file.

    Args:
        weights: By name, their values in `raw_data`.
        path: The file; graphs that refer to it must lie beside it.

    Returns:
        Weights that refer to the file, and small ones as they were.

    Raises:
        OSError: The disk is full or read-only.
    """
    found = dict(weights)
    with path.open("wb") as file:
        for name, tensor in weights.items():
            size = len(tensor.raw_data)
            if size < LEAST_BYTES:
                continue
            alignment = PAGE_BYTES if size >= LEAST_ON_PAGES else LINE_BYTES
            file.write(bytes(-file.tell() % alignment))
            stored = onnx.TensorProto(
                name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=b" "
            )
            set_external_data(stored, location=path.name, offset=file.tell(), length=size)
            stored.ClearField("raw_data")
            stored.data_location = onnx.TensorProto.EXTERNAL
            file.write(tensor.raw_data)
            found[name] = stored
    return found
