"""Items to the arrays a graph takes: packed (no padding) or padded. Pure.

The packed layout keeps all linear work on (T, H). Only attention sees sequences: two index arrays lead from
the packed order to a padded view (B, S) and back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from nestvec.engine.types import Batch, Item, Layout

Make = Callable[[], NDArray[Any]]


def collate(
    items: Sequence[Item], layout: Layout, *, is_lone: bool = False, pools: bool = False
) -> Batch:
    """Build the arrays of a batch.

    Args:
        items: At least one item, each with at least one token; all with the same exits.
        layout: What the backend declares.
        is_lone: Nothing else runs or waits.
        pools: Whether a vector of each is all that is wanted.

    Returns:
        Packed arrays: `ids` (T,), `positions` (T,), `gather` (B, S) into 0 … T-1 (padding points at token 0),
        `scatter` (T,) into 0 … B*S-1, `lengths` (B,) of what is seen, `has_equal_lengths` (), bool, `types` (T,), 1 for
        tokens of a pair's second text; int32 as the contrib attention wants lengths, int64 for indices.
        Padded arrays: `input_ids`, `attention_mask`, `token_type_ids`, each (B, S), int64.
    """
    lengths = np.fromiter((item.tokens for item in items), np.int64, len(items))
    cells = _Cells(items, lengths)
    make = cells.padded() if layout is Layout.PADDED else cells.packed()
    columns = [item.columns for item in items]
    return Batch(
        Lazy(make),
        lengths,
        layout,
        is_lone,
        items[0].exits,
        skips=np.fromiter((item.skip_tokens for item in items), np.int64, len(items)),
        is_pooled=pools,
        columns=max(columns) if all(columns) else 0,
        is_half=all(item.is_half for item in items),
    )


class Lazy(Mapping[str, NDArray[Any]]):
    """Arrays that are made when they are first asked for: not every graph takes all, a static model's ids alone.

    Args:
        make: How to make each.
    """

    def __init__(self, make: Mapping[str, Make]) -> None:
        self._make = make
        self._made: dict[str, NDArray[Any]] = {}

    @override
    def __getitem__(self, name: str) -> NDArray[Any]:
        """Make it, or give what was made."""
        if name not in self._made:
            self._made[name] = self._make[name]()
        return self._made[name]

    @override
    def __iter__(self) -> Iterator[str]:
        """All names."""
        return iter(self._make)

    @override
    def __len__(self) -> int:
        """How many there are."""
        return len(self._make)


@dataclass
class _Cells:
    """What arrays are made of."""

    items: Sequence[Item]
    lengths: NDArray[np.int64]

    @cached_property
    def columns(self) -> NDArray[np.int64]:
        """0 … S-1."""
        return np.arange(int(self.lengths.max()), dtype=np.int64)

    @cached_property
    def is_token(self) -> NDArray[np.bool_]:
        """(B, S)."""
        return np.asarray(self.columns[None, :] < self.lengths[:, None])

    @cached_property
    def seen(self) -> NDArray[np.int64]:
        """Tokens of each input that others see, (B,)."""
        hidden = np.fromiter((item.expansion for item in self.items), np.int64, len(self.items))
        return self.lengths - hidden

    def packed(self) -> dict[str, Make]:
        """See `collate`."""
        return {
            "ids": self._ids,
            "positions": lambda: np.broadcast_to(self.columns, self.is_token.shape)[self.is_token],
            "gather": self._gather,
            "scatter": lambda: np.flatnonzero(self.is_token).astype(np.int64),
            "lengths": lambda: self.seen.astype(np.int32),
            "has_equal_lengths": lambda: np.asarray(bool((self.seen == len(self.columns)).all())),
            "types": self._types,
        }

    def padded(self) -> dict[str, Make]:
        """See `collate`."""
        return {
            "input_ids": lambda: self._spread(self._ids()),
            "attention_mask": lambda: self.is_token.astype(np.int64),
            "token_type_ids": lambda: self._spread(self._types()),
        }

    def _ids(self) -> NDArray[np.int64]:
        return np.concatenate([item.ids for item in self.items]).astype(np.int64)

    def _gather(self) -> NDArray[np.int64]:
        starts = np.cumsum(self.lengths) - self.lengths
        return np.where(self.is_token, starts[:, None] + self.columns[None, :], 0)

    def _types(self) -> NDArray[np.int64]:
        """1 for tokens of a pair's second text, else 0; (T,)."""
        if not any(item.second_start for item in self.items):
            return np.zeros(int(self.lengths.sum()), np.int64)
        starts = np.array([item.second_start or item.tokens for item in self.items])
        is_second = self.columns[None, :] >= starts[:, None]
        return is_second[self.is_token].astype(np.int64)

    def _spread(self, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        """(T,) as (B, S), zeros at padding."""
        spread = np.zeros(self.is_token.shape, np.int64)
        spread[self.is_token] = flat
        return spread
