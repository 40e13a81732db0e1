"""Token spans of an input to one vector each."""

from collections.abc import Sequence

import numpy as np

from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.pooler import Outputs


def pooled_spans(
    states: FloatArray, spans: Sequence[tuple[int, int]], outputs: Outputs, skip: int
) -> FloatArray:
    """A vector of each span.

    Args:
        states: Of a document's tokens, (n, W).
        spans: As (start, stop), which may overlap.
        outputs: What is made of them.
        skip: Leading tokens of the document that pooling leaves out; a span that has no others keeps one.

    Returns:
        (spans, D), float32.
    """
    vectors = []
    for begin, end in spans:
        whole = np.array([0, end - begin])
        own = min(max(skip - begin, 0), end - begin - 1)
        vectors.append(outputs.pooled(states[begin:end], whole, np.array([own])))
    return np.concatenate(vectors)
