"""Inputs to the core's items and back: windows are items of their own, and come together again. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nestvec.engine.text.encoded import Encoded
from nestvec.engine.text.windows import joined, shares
from nestvec.engine.types import (
    EmbedCall,
    FloatArray,
    Item,
    LongInput,
    OutputKind,
    Priority,
    RawVectors,
)
from nestvec.engine.vectors.pooler import Outputs
from nestvec.engine.vectors.spans import pooled_spans


@dataclass(frozen=True, slots=True)
class Run:
    """How a call's items run.

    Attributes:
        priority: Of all.
        exits: Numbers of layers behind each of which a vector is taken; none: behind the last.
        depth: Share of the layers that run.
        columns: See `Item`; likewise `is_half`.
    """

    priority: Priority
    exits: tuple[int, ...] = ()
    depth: float = 1.0
    columns: int = 0
    is_half: bool = False


def as_items(call: EmbedCall, encoded: Sequence[Encoded], run: Run) -> list[Item]:
    """An item for each input, or for each of its windows."""
    items = []
    for index, one in enumerate(encoded):
        if one.windows is None:
            items.append(_item(call, run, index, one))
            continue
        # A document's chunks are pooled once the states of all its windows are there.
        kind = OutputKind.STATES if one.spans else None
        items += [_item(call, run, index, part, kind) for part in one.windows.parts]
    return items


def together(raw: RawVectors, encoded: Sequence[Encoded], outputs: Outputs) -> RawVectors:
    """Rows of items as rows of inputs.

    Args:
        raw: Of `as_items`' items.
        encoded: What they were made of.
        outputs: How chunks are pooled.
    """
    if all(one.windows is None for one in encoded):
        return raw
    stops = np.cumsum(raw.rows).tolist()
    rows = iter([raw.vectors[stop - n : stop] for n, stop in zip(raw.rows, stops, strict=True)])
    parts = [
        next(rows)
        if one.windows is None
        else _merged([next(rows) for _ in one.windows.parts], one, outputs)
        for one in encoded
    ]
    return RawVectors(np.concatenate(parts), tuple(map(len, parts)), raw.queue_wait_s, raw.engine_s)


def long_inputs(encoded: Sequence[Encoded]) -> tuple[LongInput, ...]:
    """What became of those that were too long."""
    found = []
    for index, one in enumerate(encoded):
        if one.windows is not None:
            parts = len(one.windows.parts)
            found.append(LongInput(index, len(one.ids), 0, drops_more=False, windows=parts))
        elif one.is_truncated:
            found.append(LongInput(index, len(one.ids), one.dropped_tokens, one.drops_more, 1))
    return tuple(found)


def _merged(own: Sequence[FloatArray], one: Encoded, outputs: Outputs) -> FloatArray:
    """An input's vector from its windows', each weighted by the tokens that it is the nearest to; or its chunks'."""
    windows = one.windows
    assert windows is not None  # noqa: S101 - the caller has looked
    if one.spans:
        states = joined(own, windows.bounds, windows.lead, windows.tail)
        return pooled_spans(states, one.spans, outputs, one.skip_tokens)
    weights = shares(windows.bounds)
    mean: FloatArray = np.einsum("w,wrd->rd", weights, np.stack(own), dtype=np.float64).astype(
        np.float32
    )
    return mean


def _item(
    call: EmbedCall, run: Run, index: int, encoded: Encoded, kind: OutputKind | None = None
) -> Item:
    return Item(
        ids=encoded.ids,
        index=index,
        skip_tokens=encoded.skip_tokens,
        key_id=call.key_id,
        priority=run.priority,
        deadline_s=call.deadline_s,
        kind=kind or call.kind,
        exits=run.exits,
        depth=run.depth,
        columns=run.columns,
        is_half=run.is_half,
        spans=encoded.spans,
        second_start=encoded.second_start,
        expansion=encoded.expansion,
        token_mask=encoded.token_mask,
    )
