"""Writes large weights to a file beside the graphs that use them (ONNX's external data).

Source: https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from collections.abc import Container
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.external_data_helper import set_external_data

# Smaller weights stay in the graph.
MIN_EXTERNAL_BYTES: Final = 1024
# ONNX Runtime maps the file into memory, so large weights start on a page; for small ones a cache line is enough.
PAGE_BYTES: Final = 4096
CACHE_LINE_BYTES: Final = 64
MIN_PAGE_ALIGNED_BYTES: Final = 65_536


class ExternalData:
    """Weights by name; large ones are in a file, written as they come, so that memory holds one at a time.

    Args:
        path: The file, made once there is a large weight; graphs that refer to it must lie in the same folder.
    """

    def __init__(self, path: Path) -> None:
        self.tensors: dict[str, onnx.TensorProto] = {}
        self._path = path
        self._has_begun = False

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Add a weight.

        Raises:
            OSError: The disk is full or read-only.
        """
        contiguous = np.ascontiguousarray(array)
        if array.nbytes < MIN_EXTERNAL_BYTES:
            self.tensors[name] = numpy_helper.from_array(contiguous, name)
            return
        data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = onnx.TensorProto(name=name, data_type=data_type, dims=contiguous.shape)
        # Opened for each, so that nothing stays open where an export fails.
        with self._path.open("ab" if self._has_begun else "wb") as file:
            self.tensors[name] = _append(file, self._path.name, tensor, contiguous)
        self._has_begun = True

    def finish(self, used: Container[str]) -> dict[str, onnx.TensorProto]:
        """Write the file anew where it holds weights that are not used.

        Returns:
            The tensors that are used, by name, in the order in which they came: large ones refer to the file.

        Raises:
            OSError: The disk is full or read-only.
        """
        kept = {name: tensor for name, tensor in self.tensors.items() if name in used}
        if all(name in kept or not _is_external(t) for name, t in self.tensors.items()):
            return kept
        whole = self._path.rename(self._path.with_name(f"{self._path.name}.whole"))
        values = np.memmap(whole, np.uint8, "r")
        with self._path.open("wb") as file:
            for name, tensor in kept.items():
                if _is_external(tensor):
                    fields = {entry.key: entry.value for entry in tensor.external_data}
                    start, size = int(fields["offset"]), int(fields["length"])
                    part = values[start : start + size]
                    kept[name] = _append(file, self._path.name, tensor, part)
        whole.unlink()
        return kept


def _append(
    file: IO[bytes], name: str, tensor: onnx.TensorProto, array: NDArray[Any]
) -> onnx.TensorProto:
    """Write a weight's values behind those that a file has, and return the tensor that refers to them."""
    alignment = PAGE_BYTES if array.nbytes >= MIN_PAGE_ALIGNED_BYTES else CACHE_LINE_BYTES
    file.write(bytes(-file.tell() % alignment))
    external = onnx.TensorProto(
        name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=b" "
    )
    set_external_data(external, location=name, offset=file.tell(), length=array.nbytes)
    external.ClearField("raw_data")
    external.data_location = onnx.TensorProto.EXTERNAL
    # As bytes: bfloat16 is no type that the buffer protocol knows.
    file.write(array.reshape(-1).view(np.uint8).data)
    return external


def _is_external(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's values are in the file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)
