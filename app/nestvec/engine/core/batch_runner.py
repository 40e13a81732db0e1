"""Items to what they ask for in one batch: collate, run, pool. What workers and start-up probes both do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend
from nestvec.engine.core.collate import collate
from nestvec.engine.core.pending_call import NOTHING
from nestvec.engine.types import Batch, FloatArray, Item, OutputKind, RawOutput
from nestvec.engine.vectors.pooler import Outputs
from nestvec.engine.vectors.postprocess import degenerate_rows
from nestvec.engine.vectors.spans import pooled_spans
from nestvec.errors import BackendError


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
        items: At least one, all with the same exits: each gives its rows as often as there are exits.
        outputs: What is made of its states; pooling is unused where the graph pools.
        is_lone: Nothing else runs or waits.

    Raises:
        BackendError: The runtime failed, or gave another number of vectors than it should.
    """
    pools = (
        backend.pooling == outputs.pooling
        and not outputs.pools_last
        and all(item.is_pooled_whole for item in items)
    )
    batch = collate(items, backend.layout, is_lone=is_lone, pools=pools)
    found = [_parts(raw, batch, items, outputs) for raw in _run(backend, batch)]
    if len(found) == 1:
        return found[0]
    rows = [np.concatenate(own) for own in zip(*(parts.rows for parts in found), strict=True)]
    return Parts(rows, np.logical_or.reduce([parts.is_degenerate for parts in found]))


def raw_vectors(
    backend: Backend, items: Sequence[Item], outputs: Outputs, *, is_lone: bool = False
) -> FloatArray:
    """The items' vectors one below the other, degenerate ones too, (R, D); as `run_items`."""
    return np.concatenate(run_items(backend, items, outputs, is_lone=is_lone).rows)


def _run(backend: Backend, batch: Batch) -> list[RawOutput]:
    """What each exit gives: of one run where the graph gives several, else of a run each."""
    if len(batch.exits) <= 1:
        return [backend.run(batch)]
    if not backend.gives_exits:
        return [backend.run(replace(batch, exits=(layer,))) for layer in batch.exits]
    raw = backend.run(batch)
    return [*(RawOutput(hidden=states) for states in raw.earlier), replace(raw, earlier=())]


def _parts(raw: RawOutput, batch: Batch, items: Sequence[Item], outputs: Outputs) -> Parts:
    """What each item asks for of one exit's states."""
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
        pooled = outputs.headed(NOTHING if raw.pooled is None else raw.pooled[:, : outputs.states])
    if len(pooled) != len(items):
        raise BackendError("the backend returned another number of vectors than it was asked for")
    is_label = items[0].kind is OutputKind.LABELS  # a score may be 0
    is_bad = ~np.isfinite(pooled).all(axis=1) if is_label else degenerate_rows(pooled)
    rows = [
        row[:, : item.columns or None] for row, item in zip(pooled[:, None, :], items, strict=True)
    ]
    return Parts(rows, np.asarray(is_bad))


def _in_parts(
    hidden: FloatArray, offsets: NDArray[np.int64], items: Sequence[Item], outputs: Outputs
) -> list[FloatArray]:
    """What each item asks for: its tokens, its terms, its spans, or one vector."""
    found = []
    for item, start in zip(items, offsets.tolist(), strict=False):
        states = hidden[start : start + item.tokens]
        if item.kind is OutputKind.STATES:
            found.append(states)
        elif item.kind is OutputKind.TOKENS:
            own = states[:, outputs.tokens]
            found.append(own if item.token_mask is None else own[item.token_mask])
        elif item.kind is OutputKind.SPARSE:
            found.append(outputs.sparse(states, item.ids))
        else:
            found.append(_spans(states, item, outputs))
    return found


def _spans(states: FloatArray, item: Item, outputs: Outputs) -> FloatArray:
    """A vector of each span."""
    return pooled_spans(states, item.spans or ((0, item.tokens),), outputs, item.skip_tokens)
