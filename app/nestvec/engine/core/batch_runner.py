"""Runs items as one batch: collate, run the graph, pool. Workers and start-up probes both do it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend
from nestvec.engine.core.batching.collate import collate, distinct_options
from nestvec.engine.core.pending_call import NO_ROWS
from nestvec.engine.outputs.adapters import ADAPTERS
from nestvec.engine.outputs.base import OutputAdapter
from nestvec.engine.types import (
    DEFAULT_OPTIONS,
    Batch,
    FloatArray,
    Item,
    ItemOptions,
    RawOutput,
)
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import BackendError


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """What each item of a batch gives.

    Attributes:
        rows: Rows of each item, (r, D), float32, neither cut nor normalized; (k, 2), id and weight, of a sparse item.
        is_degenerate: Whether an item's rows must never leave: NaN, infinity, or zeros where a model gives none; (B,),
            bool.
    """

    rows: Sequence[FloatArray]
    is_degenerate: NDArray[np.bool_]


def run_items(
    backend: Backend,
    items: Sequence[Item],
    pooler: Pooler,
    options: Sequence[ItemOptions] = (),
    *,
    is_lone: bool = False,
) -> BatchOutput:
    """Run items as one batch.

    Args:
        backend: What runs it.
        items: At least one.
        pooler: What is made of token states; its pooling is unused where the graph pools.
        options: Options of each item's call, all with the same exits: an item gives its rows as often as there are
            exits. Empty for the defaults.
        is_lone: Whether nothing else runs or waits.

    Raises:
        BackendError: The runtime failed, or gave another number of vectors than it should.
    """
    options = options or (DEFAULT_OPTIONS,) * len(items)
    pools = (
        backend.info.pooling == pooler.pooling
        and not pooler.head_before_pooling
        and _are_whole(items, options)
    )
    batch = collate(items, backend.info.layout, options, is_lone=is_lone, pools=pools)
    outputs = [_output(raw, batch, items, options, pooler) for raw in _run(backend, batch)]
    if len(outputs) == 1:
        return outputs[0]
    rows = [np.concatenate(of_item) for of_item in zip(*(out.rows for out in outputs), strict=True)]
    return BatchOutput(rows, np.logical_or.reduce([out.is_degenerate for out in outputs]))


def raw_vectors(
    backend: Backend,
    items: Sequence[Item],
    pooler: Pooler,
    options: Sequence[ItemOptions] = (),
    *,
    is_lone: bool = False,
) -> FloatArray:
    """Run items as `run_items` does, and return their vectors one below the other, degenerate ones too, (R, D)."""
    return np.concatenate(run_items(backend, items, pooler, options, is_lone=is_lone).rows)


def _are_whole(items: Sequence[Item], options: Sequence[ItemOptions]) -> bool:
    """Return whether every item gives one row, pooled from all its tokens."""
    if any(item.spans or item.gives_states for item in items):
        return False
    return all(of.gives_one_row for of in distinct_options(options))


def _run(backend: Backend, batch: Batch) -> list[RawOutput]:
    """Return what each exit gives: from one run where the graph gives several exits, else from a run each."""
    if len(batch.exits) <= 1:
        return [backend.run(batch)]
    if not backend.info.gives_exits:
        return [backend.run(replace(batch, exits=(layer,))) for layer in batch.exits]
    raw = backend.run(batch)
    return [*(RawOutput(hidden=states) for states in raw.earlier), replace(raw, earlier=())]


def _output(
    raw: RawOutput,
    batch: Batch,
    items: Sequence[Item],
    options: Sequence[ItemOptions],
    pooler: Pooler,
) -> BatchOutput:
    """Return what each item's call asks for, made of one exit's states."""
    if raw.hidden is not None and not _are_whole(items, options):
        adapters = [ADAPTERS[of.kind_of(item)] for item, of in zip(items, options, strict=True)]
        parts = _parts(raw.hidden, batch.offsets, items, adapters, pooler)
        is_degenerate = [
            bool(adapter.are_degenerate(rows, allows_zeros=pooler.gives_zeros).any())
            for adapter, rows in zip(adapters, parts, strict=True)
        ]
        return BatchOutput(parts, np.array(is_degenerate))
    if raw.hidden is not None:
        skip = np.fromiter((item.skip_tokens for item in items), np.int64, len(items))
        pooled = pooler.pool(raw.hidden, batch.offsets, skip)
    elif batch.are_pictures:
        # What stands behind the pooling is of texts: pictures' own graph gives whole vectors.
        pooled = NO_ROWS if raw.pooled is None else raw.pooled
    else:
        pooled = pooler.apply_head(
            NO_ROWS if raw.pooled is None else raw.pooled[:, : pooler.pooled_columns]
        )
    if len(pooled) != len(items):
        raise BackendError("the backend returned another number of vectors than it was asked for")
    is_bad = ADAPTERS[options[0].kind].are_degenerate(pooled, allows_zeros=pooler.gives_zeros)
    rows = list(pooled[:, None, :])
    if any(of.columns for of in distinct_options(options)):
        rows = [row[:, : of.columns or None] for row, of in zip(rows, options, strict=True)]
    return BatchOutput(rows, np.asarray(is_bad))


def _parts(
    hidden: FloatArray,
    offsets: NDArray[np.int64],
    items: Sequence[Item],
    adapters: Sequence[OutputAdapter],
    pooler: Pooler,
) -> list[FloatArray]:
    """Return the rows of each item, made of its token states by its kind of output."""
    starts = offsets.tolist()
    return [
        adapter.rows(hidden[start : start + item.tokens], item, pooler)
        for item, adapter, start in zip(items, adapters, starts, strict=False)
    ]
