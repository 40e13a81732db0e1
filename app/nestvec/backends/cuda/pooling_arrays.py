"""What a device graph is told to pool by. Pure.

`export/device_pooling.py` has the nodes, `engine/pooling.py` the reference.

Weights are powers of two, or whole numbers over one, so that half floats hold them; what is left of the mean's factor
is applied in float32 behind the sum.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]


def pooling_arrays(
    pooling: str, lengths: Lengths, skip: Lengths, longest: int
) -> Mapping[str, Callable[[], NDArray[Any]]]:
    """How to make each array, by its name in the graph.

    Args:
        pooling: The graph's.
        lengths: Of inputs, padding among them, (B,); some may be 0.
        skip: Leading tokens of each that are left out, (B,).
        longest: S.
    """
    starts = np.cumsum(lengths) - lengths
    total = int(lengths.sum())

    def index() -> NDArray[Any]:
        places = starts if pooling == "cls" else starts + lengths - 1
        found: NDArray[Any] = np.clip(places, 0, max(total - 1, 0))
        return found

    def gather() -> NDArray[Any]:
        columns = np.arange(longest, dtype=np.int64)[None, :]
        last = np.maximum(lengths - 1, 0)[:, None]
        inside = np.clip(columns, np.minimum(skip, np.maximum(lengths - 1, 0))[:, None], last)
        found: NDArray[Any] = np.clip(starts[:, None] + inside, 0, max(total - 1, 0))
        return found

    return {
        "pool_index": index,
        "pool_gather": gather,
        "pool_rows": lambda: np.arange(len(lengths), dtype=np.int64),
        "pool_owners": lambda: np.repeat(np.arange(len(lengths), dtype=np.int64), lengths),
        "pool_weights": lambda: _weights(pooling, lengths, skip),
        "pool_scales": lambda: _scales(pooling, lengths, skip),
    }


def _weights(pooling: str, lengths: Lengths, skip: Lengths) -> NDArray[np.float32]:
    """Of every token, (T,), float32, exact in half floats where positions are below 2,048."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    position = np.arange(int(lengths.sum())) - starts[owners]
    worth = position + 1.0 if pooling == "weighted_mean" else np.ones(len(owners))
    powers = np.exp2(-_exponents(pooling, lengths, skip))[owners]
    found: NDArray[np.float32] = np.where(position < skip[owners], 0.0, worth * powers).astype(
        np.float32
    )
    return found


def _scales(pooling: str, lengths: Lengths, skip: Lengths) -> NDArray[np.float32]:
    """What sums are multiplied by, (B,), float32."""
    powers = np.exp2(_exponents(pooling, lengths, skip))
    weight = _total(pooling, lengths, skip)
    divisor = np.sqrt(weight) if pooling == "mean_sqrt_len" else weight
    found: NDArray[np.float32] = (powers / divisor).astype(np.float32)
    return found


def _total(pooling: str, lengths: Lengths, skip: Lengths) -> NDArray[np.float64]:
    """Sum of the weights before they are scaled, at least 1."""
    sums = lengths - skip
    if pooling == "weighted_mean":
        sums = lengths * (lengths + 1) // 2 - skip * (skip + 1) // 2
    found: NDArray[np.float64] = np.maximum(sums, 1).astype(np.float64)
    return found


def _exponents(pooling: str, lengths: Lengths, skip: Lengths) -> NDArray[np.float64]:
    """Sums of weights over two to the power of these are between a half and one."""
    found: NDArray[np.float64] = np.ceil(np.log2(_total(pooling, lengths, skip)))
    return found


POOLING_INPUTS: Final = (
    "pool_index",
    "pool_gather",
    "pool_rows",
    "pool_owners",
    "pool_weights",
    "pool_scales",
)
