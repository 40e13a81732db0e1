"""Items to raw vectors in one batch: collate, run, pool. What workers and start-up probes both do."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.engine.backend import Backend
from app.engine.collate import collate
from app.engine.pooling import pool
from app.engine.types import FloatArray, Item, OutputKind
from app.errors import BackendError


def raw_vectors(
    backend: Backend, items: Sequence[Item], pooling: str, *, is_lone: bool = False
) -> FloatArray:
    """Run items as one batch.

    Args:
        backend: What runs it.
        items: At least one.
        pooling: Key of `pooling.POOLINGS`; unused where the graph pools.
        is_lone: Nothing else runs or waits.

    Returns:
        The items' vectors in their order, `rows` of each, not cut nor normalised; (R, H), float32.

    Raises:
        BackendError: The runtime failed, or gave another number of vectors than it should.
    """
    batch = collate(items, backend.layout, is_lone=is_lone)
    raw = backend.run(batch)
    pooled = raw.pooled
    rows = sum(item.rows for item in items)
    if raw.hidden is not None:
        if all(item.is_pooled_whole for item in items):
            skip = np.fromiter((item.skip_tokens for item in items), np.int64, len(items))
            pooled = pool(pooling, raw.hidden, batch.offsets, skip)
        else:
            pooled = _in_parts(raw.hidden, batch.offsets, items, pooling)
    if pooled is None or pooled.shape != (rows, backend.hidden_size):
        raise BackendError("the backend returned another number of vectors than it was asked for")
    return pooled


def _in_parts(
    hidden: FloatArray, offsets: NDArray[np.int64], items: Sequence[Item], pooling: str
) -> FloatArray:
    """What each item asks for: its tokens, its spans, or one vector; (R, H)."""
    parts = []
    for item, start in zip(items, offsets.tolist(), strict=False):
        states = hidden[start : start + item.tokens]
        if item.kind is OutputKind.TOKENS:
            parts.append(states)
            continue
        skip = item.skip_tokens
        for begin, end in item.spans or ((0, item.tokens),):
            whole = np.array([0, end - begin])
            parts.append(pool(pooling, states[begin:end], whole, np.array([skip])))
            skip = 0  # a prompt stands before the first
    return np.concatenate(parts)
