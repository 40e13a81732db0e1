"""How vectors fill their space: whether they crowd in a corner, along few directions, or around hubs. Pure numpy.

Source: effective rank (Roy and Vetterli, EUSIPCO 2007); IsoScore (arXiv:2108.07344), algorithm 1; hubness as the
skewness of how often each vector is among others' nearest (Radovanović et al., JMLR 2010).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nestvec.corpus.reports.statistics.neighbours import nearest
from nestvec.engine.types import Float64Array, FloatArray

MAX_VECTORS: Final = 2000
NEIGHBOURS: Final = 10
SEED: Final = 5


@dataclass(frozen=True, slots=True)
class Geometry:
    """How unit vectors fill their space; field names are keys of report.json.

    Attributes:
        mean_cosine: Mean cosine of two of them: 0 where they spread evenly.
        effective_rank: Number of directions that they use, as if all alike; at most D.
        isoscore: Evenness of the directions: 0 (one direction) to 1 (all alike).
        hubness: 0 where each is as often as others among the nearest ten; models show 1 to 5.
        n: Number of vectors that were measured.
    """

    mean_cosine: float
    effective_rank: float
    isoscore: float
    hubness: float
    n: int


def measure_geometry(unit: FloatArray) -> Geometry:
    """Measure the geometry of vectors, by a sample of at most `MAX_VECTORS`.

    Args:
        unit: `[N, D]`, float32, unit length, N at least 3.
    """
    random = np.random.default_rng(SEED)
    sample = unit[np.sort(random.permutation(len(unit))[:MAX_VECTORS])]
    wide = sample.astype(np.float64)
    count, size = wide.shape
    total = wide.sum(axis=0)
    variances = np.clip(np.linalg.eigvalsh(np.cov(wide.T)), 0, None)
    shares = variances / max(float(variances.sum()), 1e-12)
    used = shares[shares > 0]
    occurrences = np.bincount(
        nearest(sample, sample, NEIGHBOURS, skips_self=True).ravel(), minlength=count
    )
    deviations = occurrences - occurrences.mean()
    variance, skew = float((deviations**2).mean()), float((deviations**3).mean())
    return Geometry(
        mean_cosine=float((total @ total - count) / (count * (count - 1))),
        effective_rank=float(np.exp(-(used * np.log(used)).sum())),
        isoscore=_isoscore(variances / max(float(np.linalg.norm(variances)), 1e-12), size),
        hubness=skew / max(variance, 1e-12) ** 1.5,
        n=count,
    )


def _isoscore(variances: Float64Array, size: int) -> float:
    """Return IsoScore from the variances along the principal directions, scaled to unit length."""
    if size == 1:
        return 1.0
    root = np.sqrt(size)
    defect = np.linalg.norm(root * variances - 1) / np.sqrt(2 * (size - root))
    share = (size - defect**2 * (size - root)) ** 2 / size**2
    return float((size * share - 1) / (size - 1))
