"""Tokenized inputs to a submission, and the core's rows back to rows of inputs. Pure.

An input that is read in windows becomes several items, whose rows are merged again.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from nestvec.engine.results import LongInput, RawVectors
from nestvec.engine.splitting import Check, go_on
from nestvec.engine.text.encoded import Encoded
from nestvec.engine.text.windows import join_states, window_weights
from nestvec.engine.types import FloatArray, Item, ItemOptions, Submission
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.spans import pooled_spans

# Up to so many ids are looked through by Python sooner than by numpy.
FEW_TOKENS: Final = 128


def as_submission(encoded: Sequence[Encoded], options: ItemOptions) -> Submission:
    """Return a call as the core takes it: an item for each input, or for each window of one."""
    items: list[Item] = []
    for index, each in enumerate(encoded):
        if each.windows is None:
            items.append(_item(index, each))
            continue
        # A document's chunks are pooled once the states of all its windows are there.
        gives_states = bool(each.spans)
        items += [_item(index, part, gives_states=gives_states) for part in each.windows.parts]
    return Submission(options, tuple(items))


def merge_windows(
    raw: RawVectors, encoded: Sequence[Encoded], pooler: Pooler, check: Check = go_on
) -> RawVectors:
    """Turn rows of items into rows of inputs.

    Args:
        raw: What the core gave for the items of `as_submission`.
        encoded: The inputs that the items were made of.
        pooler: How chunks are pooled.
        check: Called before each input; what it raises ends the work.
    """
    if all(each.windows is None for each in encoded):
        return raw
    stops = np.cumsum(raw.rows).tolist()
    rows = iter([raw.vectors[stop - n : stop] for n, stop in zip(raw.rows, stops, strict=True)])
    parts = []
    for each in encoded:
        if each.windows is None:
            parts.append(next(rows))
            continue
        check()
        parts.append(_merged([next(rows) for _ in each.windows.parts], each, pooler))
    return RawVectors(np.concatenate(parts), tuple(map(len, parts)), raw.queue_wait_s, raw.engine_s)


def long_inputs(encoded: Sequence[Encoded]) -> tuple[LongInput, ...]:
    """Return what became of the inputs that were too long; the others are missing."""
    long = []
    for index, each in enumerate(encoded):
        if each.windows is not None:
            windows = len(each.windows.parts)
            long.append(
                LongInput(index, len(each.ids), each.dropped_tokens, each.drops_more, windows)
            )
        elif each.is_truncated:
            long.append(LongInput(index, len(each.ids), each.dropped_tokens, each.drops_more, 1))
    return tuple(long)


def unknown_tokens(encoded: Sequence[Encoded], unknown_id: int | None) -> tuple[int, ...]:
    """Return how many tokens of each input stand for what the vocabulary lacks, or were left out for it.

    Args:
        encoded: The inputs.
        unknown_id: The unknown token's id; None where the vocabulary has none.

    Returns:
        A number for each input; nothing at all where no input has one.
    """
    if len(encoded) == 1:
        (each,) = encoded
        count = each.unseen_unknown
        if unknown_id is None:
            pass
        elif len(each.ids) <= FEW_TOKENS:
            count += each.ids.tolist().count(unknown_id)
        else:
            count += int(np.count_nonzero(each.ids == unknown_id))
        return (count,) if count else ()
    unseen = [each.unseen_unknown for each in encoded]
    if unknown_id is None or not encoded:
        return tuple(unseen) if any(unseen) else ()
    is_unknown = np.concatenate([each.ids for each in encoded]) == unknown_id
    if not is_unknown.any() and not any(unseen):
        return ()
    starts = np.cumsum([0, *(len(each.ids) for each in encoded[:-1])])
    counts = np.add.reduceat(is_unknown, starts, dtype=np.int64) + unseen
    return tuple(counts.tolist()) if counts.any() else ()


def _merged(rows: Sequence[FloatArray], encoded: Encoded, pooler: Pooler) -> FloatArray:
    """Return an input's rows from those of its windows.

    Its chunks are pooled from the states of all its windows; one vector is the mean of the windows' vectors, each
    weighted by the number of tokens that it is the nearest window to.
    """
    windows = encoded.windows
    assert windows is not None  # noqa: S101 - the caller has looked
    if encoded.spans:
        states = join_states(rows, windows.bounds, windows.prefix_tokens, windows.suffix_tokens)
        return pooled_spans(states, encoded.spans, pooler, encoded.skip_tokens)
    weights = window_weights(windows.bounds)
    mean: FloatArray = np.einsum("w,wrd->rd", weights, np.stack(rows), dtype=np.float64).astype(
        np.float32
    )
    return mean


def _item(index: int, encoded: Encoded, *, gives_states: bool = False) -> Item:
    return Item(
        ids=encoded.ids,
        index=index,
        skip_tokens=encoded.skip_tokens,
        spans=encoded.spans,
        second_start=encoded.second_start,
        expansion=encoded.expansion,
        token_mask=encoded.token_mask,
        gives_states=gives_states,
        pixels=encoded.pixels,
        grids=encoded.grids,
    )
