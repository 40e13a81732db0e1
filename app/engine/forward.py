"""Items to raw vectors in one batch: collate, run, pool. What workers and start-up probes both do."""

from collections.abc import Sequence

import numpy as np

from app.engine.backend import Backend
from app.engine.collate import collate
from app.engine.pooling import pool
from app.engine.types import FloatArray, Item
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
        One vector an item in their order, not cut nor normalised; (B, H), float32.

    Raises:
        BackendError: The runtime failed, or gave another number of vectors than it was given items.
    """
    batch = collate(items, backend.layout, is_lone=is_lone)
    raw = backend.run(batch)
    pooled = raw.pooled
    if raw.hidden is not None:
        skip = np.fromiter((item.skip_tokens for item in items), np.int64, len(items))
        pooled = pool(pooling, raw.hidden, batch.offsets, skip)
    if pooled is None or pooled.shape != (len(items), backend.hidden_size):
        raise BackendError("the backend returned another number of vectors than it was given")
    return pooled
