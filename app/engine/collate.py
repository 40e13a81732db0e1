"""Items to the arrays a graph takes: packed (no padding) or padded. Pure.

The packed layout keeps all linear work on (T, H). Only attention sees sequences: two index arrays lead from
the packed order to a padded view (B, S) and back.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.types import Batch, Item, Layout


def collate(items: Sequence[Item], layout: Layout, *, is_lone: bool = False) -> Batch:
    """Build the arrays of a batch.

    Args:
        items: At least one item, each with at least one token.
        layout: What the backend declares.
        is_lone: Nothing else runs or waits.

    Returns:
        Packed arrays: `ids` (T,), `positions` (T,), `gather` (B, S) into 0 … T-1 (padding points at token 0),
        `scatter` (T,) into 0 … B*S-1, `lengths` (B,) of what is seen, `has_equal_lengths` (), bool, `types` (T,), 1 for
        tokens of a pair's second text; int32 as the contrib attention wants lengths, int64 for indices.
        Padded arrays: `input_ids`, `attention_mask`, `token_type_ids`, each (B, S), int64.
    """
    lengths = np.fromiter((item.tokens for item in items), np.int64, len(items))
    flat = np.concatenate([item.ids for item in items]).astype(np.int64)
    longest = int(lengths.max())
    columns = np.arange(longest, dtype=np.int64)
    is_token = columns[None, :] < lengths[:, None]  # (B, S)
    types = _types(items, is_token)
    arrays: dict[str, NDArray[Any]]
    if layout is Layout.PADDED:
        padded = np.zeros((len(items), longest), np.int64)
        padded[is_token] = flat
        kinds = np.zeros_like(padded)
        kinds[is_token] = types
        arrays = {
            "input_ids": padded,
            "attention_mask": is_token.astype(np.int64),
            "token_type_ids": kinds,
        }
    else:
        starts = np.cumsum(lengths) - lengths
        seen = lengths - np.fromiter((item.expansion for item in items), np.int64, len(items))
        gather = np.where(is_token, starts[:, None] + columns[None, :], 0)
        arrays = {
            "ids": flat,
            "positions": np.broadcast_to(columns, is_token.shape)[is_token],
            "gather": gather,
            "scatter": np.flatnonzero(is_token).astype(np.int64),
            "lengths": seen.astype(np.int32),
            "has_equal_lengths": np.asarray(bool((seen == longest).all())),
            "types": types,
        }
    return Batch(arrays=arrays, lengths=lengths, layout=layout, is_lone=is_lone)


def _types(items: Sequence[Item], is_token: NDArray[np.bool_]) -> NDArray[np.int64]:
    """1 for tokens of a pair's second text, else 0; (T,)."""
    if not any(item.second_start for item in items):
        return np.zeros(int(is_token.sum()), np.int64)
    starts = [item.second_start or item.tokens for item in items]
    columns = np.arange(is_token.shape[1])
    is_second = columns[None, :] >= np.array(starts)[:, None]
    return is_second[is_token].astype(np.int64)
