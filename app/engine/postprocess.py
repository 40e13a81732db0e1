"""Raw vectors to what the caller asked for: cut to dimensions, then renormalise. Pure numpy.

The order is fixed (api-contract 8.1): a prefix of a unit vector is not a unit vector, so the norm is taken
after the cut, in float64, over what is left.

Source: Matryoshka Representation Learning (arXiv:2205.13147) for the cut.
"""

import numpy as np
from numpy.typing import NDArray

from app.engine.types import FloatArray

# Ollama and torch's F.normalize guard with the same constant; it keeps a zero prefix finite.
MIN_NORM = 1e-12


def finish(raw: FloatArray, *, dimensions: int | None, normalize: bool) -> FloatArray:
    """Cut to `dimensions` and scale to unit length.

    Args:
        raw: Pooled vectors, (B, H), float32.
        dimensions: How many leading values to keep, 1 … H; None keeps all.
        normalize: Whether to scale each row to unit length.

    Returns:
        (B, D), float32, C-contiguous, a copy where anything changed.

    Raises:
        ValueError: `dimensions` is outside 1 … H.
    """
    cut = raw
    if dimensions is not None:
        if not 1 <= dimensions <= raw.shape[1]:
            raise ValueError(f"dimensions must be 1 to {raw.shape[1]}")
        cut = raw[:, :dimensions]
    if normalize:
        wide = cut.astype(np.float64)
        norms: NDArray[np.float64] = np.linalg.norm(wide, axis=1, keepdims=True)
        cut = (wide / np.maximum(norms, MIN_NORM)).astype(np.float32)
    return np.ascontiguousarray(cut)


def degenerate_rows(raw: FloatArray) -> NDArray[np.bool_]:
    """Mark rows that must never leave: NaN, infinity or all zeros.

    Args:
        raw: (B, H), float32.

    Returns:
        (B,), bool.
    """
    is_finite = np.isfinite(raw).all(axis=1)
    has_value = raw.any(axis=1)
    return np.asarray(~(is_finite & has_value))
