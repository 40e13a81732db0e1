"""Which query finds its own answer first. Pure numpy."""

import numpy as np

from nestvec.corpus.reports.statistics.neighbours import nearest
from nestvec.engine.types import Float64Array, FloatArray


def found_first(queries: FloatArray, documents: FloatArray) -> Float64Array:
    """Return 1 for each query whose own document, that of the same row, is the nearest of all, else 0, `[Q]`."""
    first = nearest(queries, documents, 1)[:, 0]
    hits: Float64Array = (first == np.arange(len(queries))).astype(np.float64)
    return hits
