"""How vectors fill their space: whether they crowd in a corner, along few directions, or around hubs. Pure numpy.

Source: effective rank (Roy and Vetterli, EUSIPCO 2007); IsoScore (arXiv:2108.07344), algorithm 1; hubness as the
skewness of how often each vector is among others' nearest (Radovanović et al., JMLR 2010).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nestvec.engine.types import FloatArray
from nestvec.tools.quality.neighbours import nearest

MOST_VECTORS: Final = 2000
NEIGHBOURS: Final = 10
SEED: Final = 5


@dataclass(frozen=True, slots=True)
class Geometry:
    """Of unit vectors.

    Attributes:
        mean_cosine: Between two of them: 0 where they spread evenly.
        effective_rank: Directions that they use, as if all alike; at most D.
        isoscore: 0 (one direction) to 1 (all alike).
        hubness: 0 where each is as often as others among the nearest ten; models show 1 to 5.
        n: Vectors looked at.
    """

    mean_cosine: float
    effective_rank: float
    isoscore: float
    hubness: float
    n: int


def measure_geometry(unit: FloatArray) -> Geometry:
    """Look at vectors, or a sample of them.

    Args:
        unit: (N, D), float32, unit length, N at least 3.
    """
    random = np.random.default_rng(SEED)
    chosen = unit[np.sort(random.permutation(len(unit))[:MOST_VECTORS])]
    wide = chosen.astype(np.float64)
    count, size = wide.shape
    total = wide.sum(axis=0)
    spreads = np.clip(np.linalg.eigvalsh(np.cov(wide.T)), 0, None)
    shares = spreads / max(float(spreads.sum()), 1e-12)
    used = shares[shares > 0]
    often = np.bincount(
        nearest(chosen, chosen, NEIGHBOURS, skips_self=True).ravel(), minlength=count
    )
    off = often - often.mean()
    return Geometry(
        mean_cosine=float((total @ total - count) / (count * (count - 1))),
        effective_rank=float(np.exp(-(used * np.log(used)).sum())),
        isoscore=_isoscore(spreads / max(float(np.linalg.norm(spreads)), 1e-12), size),
        hubness=float((off**3).mean() / max(float((off**2).mean()), 1e-12) ** 1.5),
        n=count,
    )


def _isoscore(spreads: np.ndarray[tuple[int, ...], np.dtype[np.float64]], size: int) -> float:
    """From variances along the principal directions, scaled to unit length."""
    if size == 1:
        return 1.0
    root = np.sqrt(size)
    defect = np.linalg.norm(root * spreads - 1) / np.sqrt(2 * (size - root))
    share = (size - defect**2 * (size - root)) ** 2 / size**2
    return float((size * share - 1) / (size - 1))
