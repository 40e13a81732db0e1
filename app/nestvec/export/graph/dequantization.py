"""Reads 8-bit weights back to floats: the stored number, less a zero point where there is one, times its scale.

Source: `dequantize` of https://github.com/vllm-project/compressed-tensors; transformers' finegrained_fp8.py, whose
`weight_scale_inv` is multiplied too, whatever its name says.
"""

import json
import struct
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.graph.types import Float32Array

# safetensors' names of dtypes that numpy lacks, and which the library therefore cannot hand over as numpy arrays.
FLOAT8: Final = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}
# What is put behind a weight's name for the name of its scale, and for that of its zero point.
SCALES: Final = ("_scale", "_scale_inv")
ZERO_POINT: Final = "_zero_point"
LENGTH_BYTES: Final = 8


def is_quantized(values: NDArray[Any]) -> bool:
    """Whether an array may hold numbers that stand for floats by a scale: integers or floats of one byte."""
    return values.dtype.itemsize == 1 and values.dtype != np.bool_


def dequantized(
    values: NDArray[Any],
    scale: Float32Array,
    zero_point: NDArray[Any] | None,
    block: tuple[int, int] | None,
) -> Float32Array | None:
    """Compute a weight [rows, columns] from its stored numbers.

    Args:
        values: Stored numbers, [rows, columns].
        scale: One, [rows] or [rows, 1], or one for each block of rows and columns.
        zero_point: As many as scales; None for 0.
        block: Rows and columns that share a scale; None where a scale is of the tensor or of a row.

    Returns:
        The weight, float32; None where scales or zero points do not fit it.
    """
    scales = _spread(scale, values.shape, block)
    if scales is None:
        return None
    wide = values.astype(np.float32)
    if zero_point is not None:
        zeros = _spread(zero_point.astype(np.float32), values.shape, block)
        if zeros is None:
            return None
        wide = wide - zeros
    weight: Float32Array = wide * scales
    return weight


def _spread(
    scale: Float32Array, shape: tuple[int, ...], block: tuple[int, int] | None
) -> Float32Array | None:
    """Shape scales so that they multiply a weight; None where they do not fit."""
    if scale.size == 1:
        return scale.reshape(())
    if len(shape) != 2:  # noqa: PLR2004 - rows and columns
        return None
    rows, columns = shape
    if scale.shape in ((rows,), (rows, 1)):
        return scale.reshape(rows, 1)
    if block is None or scale.shape != (-(-rows // block[0]), -(-columns // block[1])):
        return None
    return scale.repeat(block[0], axis=0)[:rows].repeat(block[1], axis=1)[:, :columns]


def read_float8(path: Path, name: str) -> NDArray[Any]:
    """Read a tensor of a dtype of `FLOAT8` out of a safetensors file that was opened before.

    Source: https://huggingface.co/docs/safetensors, section "Format".

    Raises:
        FormatError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(LENGTH_BYTES))
            entry = json.loads(file.read(length))[name]
            start, stop = entry["data_offsets"]
            file.seek(LENGTH_BYTES + length + start)
            content = file.read(stop - start)
        dtype = np.dtype(FLOAT8[entry["dtype"]])
        values: NDArray[Any] = np.frombuffer(content, dtype).reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise FormatError(f"{path}: tensor '{name}' is unreadable ({error})") from error
    return values
