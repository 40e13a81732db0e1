"""What values of a vector are given as."""

from enum import StrEnum
from typing import Any, Final

import numpy as np


class OutputDtype(StrEnum):
    """What values of a vector are given as; not to be mixed up with a model's precision."""

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
        """How many values of a vector go into one stored number."""
        return 8 if self in (OutputDtype.BINARY, OutputDtype.UBINARY) else 1

    @property
    def is_quantised(self) -> bool:
        """Whether values become integers, which takes unit vectors."""
        return self in QUANTISED

    @property
    def stored(self) -> np.dtype[Any]:
        """Of one stored number; bfloat16 and float8 by ml_dtypes, little-endian as all."""
        if self in (OutputDtype.BINARY, OutputDtype.UBINARY):
            return np.dtype("int8" if self is OutputDtype.BINARY else "uint8")
        if self in (OutputDtype.BFLOAT16, OutputDtype.FLOAT8_E4M3, OutputDtype.FLOAT8_E5M2):
            import ml_dtypes  # for the few who ask for these

            small: np.dtype[Any] = np.dtype(getattr(ml_dtypes, self.value))
            return small
        return np.dtype(self.value).newbyteorder("<")


QUANTISED: Final = (
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
