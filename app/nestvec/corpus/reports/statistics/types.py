"""The array types that the measurements share."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# `[Q, K]`: for each query the indices of the documents that a search returns, nearest first.
Ranking = NDArray[np.int64]
# Called with the number of texts that were embedded since the last call.
ProgressCallback = Callable[[int], object]
