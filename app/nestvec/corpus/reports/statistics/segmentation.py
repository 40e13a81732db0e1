"""How well found boundaries in a row of sentences agree with true ones. Pure numpy.

Source: WindowDiff (Pevzner and Hearst, Computational Linguistics 28(1), 2002).
"""

import numpy as np
from numpy.typing import NDArray


def window_diff(true: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Return the share of windows in which the numbers of boundaries differ: 0 for none, 1 for all.

    A window is half as long as a true segment is on average, rounded to whole sentences.

    Args:
        true: Whether a segment ends at each gap between sentences, `[N - 1]`.
        found: The same, as it was found.
    """
    gaps = len(true)
    size = max(2, round((gaps + 1) / (int(true.sum()) + 1) / 2))
    size = min(size, gaps)
    sums = [np.concatenate([[0], np.cumsum(each)]) for each in (true, found)]
    counts = [each[size:] - each[:-size] for each in sums]
    return float((counts[0] != counts[1]).mean())
