"""Spans of an input's tokens to one vector each."""

from collections.abc import Sequence

import numpy as np

from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.pooler import Pooler


def pooled_spans(
    states: FloatArray, spans: Sequence[tuple[int, int]], pooler: Pooler, skip_tokens: int
) -> FloatArray:
    """Pool each span of a document to a vector.

    Args:
        states: States of the document's tokens, (n, W), float32.
        spans: Spans as (start, stop) in tokens, which may overlap.
        pooler: The model's pooler.
        skip_tokens: Number of leading tokens of the document that pooling leaves out; a span that has no others keeps
            one.

    Returns:
        One vector for each span, (spans, D), float32.
    """
    vectors = []
    for start, stop in spans:
        offsets = np.array([0, stop - start])
        skip = min(max(skip_tokens - start, 0), stop - start - 1)
        vectors.append(pooler.pool(states[start:stop], offsets, np.array([skip])))
    return np.concatenate(vectors)
