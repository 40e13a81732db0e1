"""The values in the files."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def base_values() -> NDArray[np.float32]:
    """The matrix that most tensors are made of."""
    values: NDArray[np.float32] = np.random.default_rng(5).standard_normal((6, 8), np.float32)
    return values


def expected() -> dict[str, NDArray[Any]]:
    """What each tensor holds, in its dtype."""
    import ml_dtypes  # torch's own venv, where the files are made, has it not

    base = base_values()
    return {
        "base": base,
        "transposed": base.T,
        "part": base[1:4, 2:5],
        "parameter": base[0],
        "half": base.astype(np.float16),
        "bfloat16": base.astype(ml_dtypes.bfloat16),
        "float64": base.astype(np.float64),
        "positions": np.arange(7)[None],
        "int32": np.arange(5, dtype=np.int32),
        "int16": np.arange(5, dtype=np.int16),
        "int8": np.arange(-2, 3, dtype=np.int8),
        "uint8": np.arange(5, dtype=np.uint8),
        "flags": np.array([True, False, True]),
        "empty": np.zeros((0, 3), np.float32),
        "number": np.array(3.5, np.float32),
    }
