"""The dtypes in which the values of a vector are given out."""

from enum import StrEnum
from typing import Any, Final

import numpy as np


class OutputDtype(StrEnum):
    """The dtype in which the values of a vector are given out; not to be mixed up with a model's precision."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT8_E4M3 = "float8_e4m3fn"
    FLOAT8_E5M2 = "float8_e5m2"
    INT8 = "int8"  # by the model's calibrated ranges
    UINT8 = "uint8"  # the same codes, 128 higher
    BINARY = "binary"  # a bit a value, eight of them in an int8 offset by 128
    UBINARY = "ubinary"  # the same in a uint8

    @property
    def values_per_item(self) -> int:
        """Number of a vector's values that go into one stored number."""
        return 8 if self in (OutputDtype.BINARY, OutputDtype.UBINARY) else 1

    @property
    def is_quantized(self) -> bool:
        """Whether values become integers, which takes unit vectors."""
        return self in QUANTIZED

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """NumPy dtype of one stored number, little-endian; bfloat16 and float8 come from ml_dtypes."""
        if self in (OutputDtype.BINARY, OutputDtype.UBINARY):
            return np.dtype("int8" if self is OutputDtype.BINARY else "uint8")
        if self in (OutputDtype.BFLOAT16, OutputDtype.FLOAT8_E4M3, OutputDtype.FLOAT8_E5M2):
            import ml_dtypes  # only for the few calls that ask for these

            small: np.dtype[Any] = np.dtype(getattr(ml_dtypes, self.value))
            return small
        return np.dtype(self.value).newbyteorder("<")


QUANTIZED: Final = (
    OutputDtype.INT8,
    OutputDtype.UINT8,
    OutputDtype.BINARY,
    OutputDtype.UBINARY,
)
# What every dialect and the offline files may be asked for; the others are words of one dialect.
OFFERED: Final = (
    OutputDtype.FLOAT32,
    OutputDtype.FLOAT16,
    OutputDtype.INT8,
    OutputDtype.UINT8,
    OutputDtype.BINARY,
    OutputDtype.UBINARY,
)
