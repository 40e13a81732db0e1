"""Relative position bias in buckets: near distances exactly, far ones by their logarithm.

Source: T5 (arXiv:1910.10683), section 2.1; MPNet (arXiv:2004.09297) has T5's, the same for every layer.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_DISTANCE: Final = 128


def bucket_bias(table: NDArray[np.float32], longest: int) -> NDArray[np.float32]:
    """The bias of each pair of positions.

    Args:
        table: (buckets, heads), float32.
        longest: The most positions L.

    Returns:
        (1, heads, L, L), float32: of query i and key j.
    """
    places = np.arange(longest)
    buckets = _buckets(places[None, :] - places[:, None], len(table))
    return np.ascontiguousarray(table[buckets].transpose(2, 0, 1)[None])


def _buckets(distance: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Bucket of a key so far behind the query; half of the buckets are for keys ahead of it."""
    half = count // 2
    exact = half // 2
    size = np.abs(distance)
    # In float32, as where models were trained: a distance on a border falls to the same side.
    logarithm = np.log(np.maximum(size, 1).astype(np.float32) / exact)
    far = logarithm / np.float32(np.log(MAX_DISTANCE / exact)) * (half - exact)
    bucket = np.where(size < exact, size, np.minimum(exact + far.astype(np.int64), half - 1))
    found: NDArray[np.int64] = bucket + half * (distance > 0)
    return found
