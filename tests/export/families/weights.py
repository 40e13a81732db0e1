"""Random tensors by name and shape: the same on every machine, so that none need be stored."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def random_weights(
    shapes: Mapping[str, Sequence[int]], seed: int
) -> dict[str, NDArray[np.float32]]:
    """Make tensors in the order of their names; scales of norms are near one, so that errors show."""
    random = np.random.Generator(np.random.PCG64(seed))
    tensors = {}
    for name in sorted(shapes):
        values = 0.2 * random.standard_normal(tuple(shapes[name]))
        is_scale = name.endswith("weight") and len(shapes[name]) == 1
        tensors[name] = (values + is_scale).astype(np.float32)
    return tensors


def random_ids(lengths: Sequence[int], vocabulary: int, seed: int) -> list[list[int]]:
    """Make token ids above those of special tokens, a list for each length."""
    random = np.random.Generator(np.random.PCG64(seed))
    return [random.integers(5, vocabulary, length).tolist() for length in lengths]
