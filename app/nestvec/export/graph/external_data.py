"""Writes large weights to a file beside the graphs that use them (ONNX's external data).

Source: https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx
from onnx.external_data_helper import set_external_data

# Smaller weights stay in the graph.
MIN_EXTERNAL_BYTES: Final = 1024
# ONNX Runtime maps the file into memory, so large weights start on a page; for small ones a cache line is enough.
PAGE_BYTES: Final = 4096
CACHE_LINE_BYTES: Final = 64
MIN_PAGE_ALIGNED_BYTES: Final = 65_536


def write_external_data(
    weights: Mapping[str, onnx.TensorProto], path: Path
) -> dict[str, onnx.TensorProto]:
    """Write large weights to a file, which several graphs may share.

    Args:
        weights: Tensors by name, their values in `raw_data`.
        path: The file; graphs that refer to it must lie in the same folder.

    Returns:
        The tensors by name: large ones refer to the file, small ones are unchanged.

    Raises:
        OSError: The disk is full or read-only.
    """
    tensors = dict(weights)
    with path.open("wb") as file:
        for name, tensor in weights.items():
            size = len(tensor.raw_data)
            if size < MIN_EXTERNAL_BYTES:
                continue
            alignment = PAGE_BYTES if size >= MIN_PAGE_ALIGNED_BYTES else CACHE_LINE_BYTES
            file.write(bytes(-file.tell() % alignment))
            external = onnx.TensorProto(
                name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=b" "
            )
            set_external_data(external, location=path.name, offset=file.tell(), length=size)
            external.ClearField("raw_data")
            external.data_location = onnx.TensorProto.EXTERNAL
            file.write(tensor.raw_data)
            tensors[name] = external
    return tensors
