"""Items to what they ask for in one batch: collate, run, pool. What workers and start-up probes both do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.engine.backend import Backend
from app.engine.collate import collate
from app.engine.outputs import Outputs
from app.engine.pending import NOTHING
from app.engine.postprocess import degenerate_rows
from app.engine.types import FloatArray, Item, OutputKind
from app.errors import BackendError


@dataclass(frozen=True, slots=True)
class Parts:
    """What each item gives.

    Attributes:
        rows: Of each item, (r, D), float32, not cut nor normalised; of a sparse one (k, 2): id and weight.
        is_degenerate: Of each item, whether it must never leave: NaN, infinity, or a vector of zeros; (B,), bool.
    """

    rows: Sequence[FloatArray]
    is_degenerate: NDArray[np.bool_]


def run_items(
    backend: Backend, items: Sequence[Item], outputs: Outputs, *, is_lone: bool = False
) -> Parts:
    """Run items as one batch.

    Args:
        backend: What runs it.
        items: At least one.
        outputs: What is made of its states; pooling is unused where the graph pools.
        is_lone: Nothing else runs or waits.

    Raises:
        BackendError: The runtime failed, or gave another number of vectors than it should.
    """
    batch = collate(items, backend.layout, is_lone=is_lone)
    raw = backend.run(batch)
    if raw.hidden is not None and not all(item.is_pooled_whole for item in items):
        rows = _in_parts(raw.hidden, batch.offsets, items, outputs)
        bad = [
            not np.isfinite(own).all()
            if item.kind is OutputKind.SPARSE
            else bool(degenerate_rows(own).any())
            for item, own in zip(items, rows, strict=True)
        ]
        return Parts(rows, np.array(bad))
    if raw.hidden is not None:
        skip = np.fromiter((item.skip_tokens for item in items), np.int64, len(items))
        pooled = outputs.pooled(raw.hidden, batch.offsets, skip)
    else:
        pooled = outputs.headed(NOTHING if raw.pooled is None else raw.pooled)
    if len(pooled) != len(items):
        raise BackendError("the backend returned another number of vectors than it was asked for")
    is_label = items[0].kind is OutputKind.LABELS  # a score may be 0
    is_bad = ~np.isfinite(pooled).all(axis=1) if is_label else degenerate_rows(pooled)
    return Parts(list(pooled[:, None, :]), np.asarray(is_bad))


def raw_vectors(
    backend: Backend, items: Sequence[Item], outputs: Outputs, *, is_lone: bool = False
) -> FloatArray:
    """The items' vectors one below the other, degenerate ones too, (R, D); as `run_items`."""
    return np.concatenate(run_items(backend, items, outputs, is_lone=is_lone).rows)


def _in_parts(
    hidden: FloatArray, offsets: NDArray[np.int64], items: Sequence[Item], outputs: Outputs
) -> list[FloatArray]:
    """What each item asks for: its tokens, its terms, its spans, or one vector."""
    found = []
    for item, start in zip(items, offsets.tolist(), strict=False):
        states = hidden[start : start + item.tokens]
        if item.kind is OutputKind.TOKENS:
            own = states[:, outputs.tokens]
            found.append(own if item.token_mask is None else own[item.token_mask])
        elif item.kind is OutputKind.SPARSE:
            found.append(outputs.sparse(states, item.ids))
        else:
            found.append(_spans(states, item, outputs))
    return found


def _spans(states: FloatArray, item: Item, outputs: Outputs) -> FloatArray:
    """A vector of each span."""
    vectors = []
    skip = item.skip_tokens
    for begin, end in item.spans or ((0, item.tokens),):
        whole = np.array([0, end - begin])
        vectors.append(outputs.pooled(states[begin:end], whole, np.array([skip])))
        skip = 0  # a prompt stands before the first
    return np.concatenate(vectors)
