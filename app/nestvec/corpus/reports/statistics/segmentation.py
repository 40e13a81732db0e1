"""Boundaries between topics in a row of sentences, and how well found ones agree with true ones. Pure numpy.

Source: TextTiling's depth scores (Hearst, 1997) over embeddings; WindowDiff (Pevzner and Hearst, 2002).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import Float64Array, FloatArray

# A valley is a boundary where its depth is above the mean by so many deviations.
THRESHOLD_DEVIATIONS: Final = 0.5


def valley_depths(sentences: FloatArray, window: int) -> Float64Array:
    """Return how deep similarity falls at each gap, `[N - 1]`: from the peak before and from that behind, together.

    Args:
        sentences: Unit vectors of the sentences in order, `[N, D]`, N at least 2.
        window: How many sentences on each side of a gap are compared.
    """
    count = len(sentences)
    sums = np.concatenate([np.zeros((1, sentences.shape[1])), np.cumsum(sentences, axis=0)])
    gaps = np.arange(1, count)
    before = sums[gaps] - sums[np.maximum(gaps - window, 0)]
    behind = sums[np.minimum(gaps + window, count)] - sums[gaps]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(behind, axis=1)
    similarity = np.einsum("nd,nd->n", before, behind) / np.maximum(norms, 1e-12)
    return np.array(
        [
            _peak(similarity, gap, -1) + _peak(similarity, gap, 1) - 2 * similarity[gap]
            for gap in range(count - 1)
        ]
    )


def find_boundaries(depths: Float64Array) -> NDArray[np.bool_]:
    """Return at which gaps a topic ends, `[N - 1]`: the deepest of their neighbours, and deep enough."""
    edge = depths.mean() + THRESHOLD_DEVIATIONS * depths.std()
    padded = np.concatenate([[-np.inf], depths, [-np.inf]])
    is_peak = (padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:])
    found: NDArray[np.bool_] = is_peak & (depths > edge)
    return found


def window_diff(true: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Return the share of windows in which the numbers of boundaries differ: 0 for none, 1 for all.

    A window is half as long as a true segment is on average.
    """
    gaps = len(true)
    size = max(2, round((gaps + 1) / (int(true.sum()) + 1) / 2))
    size = min(size, gaps)
    sums = [np.concatenate([[0], np.cumsum(each)]) for each in (true, found)]
    counts = [each[size:] - each[:-size] for each in sums]
    return float((counts[0] != counts[1]).mean())


def _peak(similarity: Float64Array, gap: int, step: int) -> float:
    """Return the height to which similarity climbs from a gap in one direction before it falls."""
    height = float(similarity[gap])
    place = gap + step
    while 0 <= place < len(similarity) and similarity[place] >= height:
        height = float(similarity[place])
        place += step
    return height
