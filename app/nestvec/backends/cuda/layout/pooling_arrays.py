"""Arrays that tell a device graph how to pool. Pure.

`export/layers/device_pooling.py` has the graph's nodes, `engine/vectors/pooling.py` the reference.

Weights are powers of two, or whole numbers over a power of two, so that half floats hold them exactly; what is left of
the mean's factor is applied in float32 after the sum.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]
POOLING_INPUTS: Final = (
    "pool_index",
    "pool_gather",
    "pool_rows",
    "pool_owners",
    "pool_weights",
    "pool_scales",
)


def pooling_arrays(
    pooling: str, lengths: Lengths, skip: Lengths, longest: int
) -> Mapping[str, Callable[[], NDArray[Any]]]:
    """Return a function for each array that makes it, by the array's name in the graph.

    Args:
        pooling: How the graph pools, a key of `pooling.POOLINGS`.
        lengths: Number of tokens of each input, padding inputs included, (B,), int64; some may be 0.
        skip: Number of leading tokens of each input that are left out, (B,), int64.
        longest: S, the width of `pool_gather`.
    """
    starts = np.cumsum(lengths) - lengths
    total = int(lengths.sum())

    def index() -> NDArray[Any]:
        tokens = starts if pooling == "cls" else starts + lengths - 1
        clipped: NDArray[Any] = np.clip(tokens, 0, max(total - 1, 0))
        return clipped

    def gather() -> NDArray[Any]:
        columns = np.arange(longest, dtype=np.int64)[None, :]
        last = np.maximum(lengths - 1, 0)[:, None]
        inside = np.clip(columns, np.minimum(skip, np.maximum(lengths - 1, 0))[:, None], last)
        clipped: NDArray[Any] = np.clip(starts[:, None] + inside, 0, max(total - 1, 0))
        return clipped

    return {
        "pool_index": index,
        "pool_gather": gather,
        "pool_rows": lambda: np.arange(len(lengths), dtype=np.int64),
        "pool_owners": lambda: np.repeat(np.arange(len(lengths), dtype=np.int64), lengths),
        "pool_weights": lambda: _weights(pooling, lengths, skip),
        "pool_scales": lambda: _scales(pooling, lengths, skip),
    }


def _weights(pooling: str, lengths: Lengths, skip: Lengths) -> NDArray[np.float32]:
    """Return the weight of every token, (T,), float32, exact in half floats where positions are below 2,048."""
    powers = np.exp2(-_exponents(pooling, lengths, skip)).astype(np.float32)
    weights: NDArray[np.float32] = np.repeat(powers, lengths)
    if pooling != "weighted_mean" and not skip.any():
        return weights
    owners = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    position = np.arange(len(owners)) - starts[owners]
    if pooling == "weighted_mean":
        weights *= position + np.float32(1)
    weights[position < skip[owners]] = 0
    return weights


def _scales(pooling: str, lengths: Lengths, skip: Lengths) -> NDArray[np.float32]:
    """Return what each input's sum is multiplied by, (B,), float32."""
    powers = np.exp2(_exponents(pooling, lengths, skip))
    total = _total_weights(pooling, lengths, skip)
    divisor = np.sqrt(total) if pooling == "mean_sqrt_len" else total
    scales: NDArray[np.float32] = (powers / divisor).astype(np.float32)
    return scales


def _total_weights(pooling: str, lengths: Lengths, skip: Lengths) -> NDArray[np.float64]:
    """Return the sum of each input's weights before they are scaled, at least 1, (B,), float64."""
    sums = lengths - skip
    if pooling == "weighted_mean":
        sums = lengths * (lengths + 1) // 2 - skip * (skip + 1) // 2
    totals: NDArray[np.float64] = np.maximum(sums, 1).astype(np.float64)
    return totals


def _exponents(pooling: str, lengths: Lengths, skip: Lengths) -> NDArray[np.float64]:
    """Return exponents of two, (B,), over which the sums of weights lie between a half and one."""
    exponents: NDArray[np.float64] = np.ceil(np.log2(_total_weights(pooling, lengths, skip)))
    return exponents
