"""Items to the arrays a graph takes: packed (no padding) or padded. Pure.

The packed layout keeps all linear work on (T, H). Only attention sees sequences: two index arrays lead from the packed
order to a padded view (B, S) and back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from nestvec.engine.core.batching import picture_tokens
from nestvec.engine.types import DEFAULT_OPTIONS, Batch, Item, ItemOptions, Layout

PATCHED_AXES: Final = 5  # rows, columns, height and width of a patch, colours
Make = Callable[[], NDArray[Any]]


def collate(
    items: Sequence[Item],
    layout: Layout,
    options: Sequence[ItemOptions] = (),
    *,
    is_lone: bool = False,
    pools: bool = False,
) -> Batch:
    """Build the arrays of a batch.

    Args:
        items: At least one item, each with at least one token.
        layout: What the backend declares.
        options: Options of each item's call, all with the same exits; empty for the defaults.
        is_lone: Whether nothing else runs or waits.
        pools: Whether one vector of each item is all that is wanted.

    Returns:
        Packed arrays: `ids` (T,), `positions` (T,), `gather` (B, S) into 0 … T-1 (padding points at token 0),
        `scatter` (T,) into 0 … B*S-1, `lengths` (B,) of what is seen, `has_equal_lengths` (), bool, `types` (T,), 1 for
        tokens of a pair's second text; int32 as the contrib attention wants lengths, int64 for indices. Of decoders
        that read pictures among tokens `axes` (3, T) and `picture_places` (P,), int64, too.
        Padded arrays: `input_ids`, `attention_mask`, `token_type_ids`, each (B, S), int64. Of pictures `pixels` too,
        (B, P, P, 3), uint8; of pictures in their own shapes the patches of all, (T, p, p, 3), and `grids`, (B, 2),
        int64, their rows and columns.
    """
    options = options or (DEFAULT_OPTIONS,)
    lengths = np.fromiter((len(item.ids) for item in items), np.int64, len(items))
    cells = _Cells(items, lengths)
    make = cells.padded() if layout is Layout.PADDED else cells.packed()
    are_pictures = options[0].are_pictures
    prefix: tuple[Batch, ...] = ()
    if are_pictures and items[0].grids:
        make |= {
            "ids": lambda: picture_tokens.token_ids(items),
            "axes": lambda: picture_tokens.token_axes(items),
        }
        runs = picture_tokens.runs_of(picture_tokens.placed_pictures(items))
        places = np.concatenate([picture.places for run in runs for picture in run])
        make["picture_places"] = lambda: places
        prefix = tuple(_prefix(run, is_lone=is_lone) for run in runs)
    elif are_pictures:
        make["pixels"], make["grids"] = cells.pixels, cells.grids
    distinct = distinct_options(options)
    columns = [of_items.columns for of_items in distinct]
    return Batch(
        LazyArrays(make),
        lengths,
        layout,
        is_lone,
        options[0].exits,
        skips=np.fromiter((item.skip_tokens for item in items), np.int64, len(items)),
        is_pooled=pools,
        columns=max(columns) if all(columns) else 0,
        is_half=all(of_items.is_half for of_items in distinct),
        are_pictures=are_pictures,
        prefix=prefix,
    )


def _prefix(pictures: Sequence[picture_tokens.PlacedPicture], *, is_lone: bool) -> Batch:
    """Build the batch of pictures that the tower takes in one run: a sequence of patches for each."""
    lengths = np.array([len(picture.patches) for picture in pictures], np.int64)
    # Patches have no ids; a graph of them takes none.
    sequences = [Item(np.zeros(length, np.int32)) for length in lengths.tolist()]
    make = _Cells(sequences, lengths).packed() | {
        "pixels": lambda: np.concatenate([picture.patches for picture in pictures]),
        "patch_grid": lambda: picture_tokens.patch_grid([picture.grid for picture in pictures]),
    }
    return Batch(LazyArrays(make), lengths, Layout.PACKED, is_lone, are_pictures=True)


def distinct_options(options: Sequence[ItemOptions]) -> list[ItemOptions]:
    """Return options without repetitions: those of a call are one object, however many items it has."""
    return list(dict(zip(map(id, options), options, strict=True)).values())


class LazyArrays(Mapping[str, NDArray[Any]]):
    """Arrays that are made when they are first read: not every graph takes all of them; a static model takes ids only.

    Args:
        make: By name, how to make each array.
    """

    def __init__(self, make: Mapping[str, Make]) -> None:
        self._make = make
        self._arrays: dict[str, NDArray[Any]] = {}

    @override
    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return an array, made now if it was not read before."""
        if name not in self._arrays:
            self._arrays[name] = self._make[name]()
        return self._arrays[name]

    @override
    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of all arrays."""
        return iter(self._make)

    @override
    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self._make)


@dataclass
class _Cells:
    """The items of a batch, and the views that several arrays are made of."""

    items: Sequence[Item]
    lengths: NDArray[np.int64]

    @cached_property
    def columns(self) -> NDArray[np.int64]:
        """0 … S-1, (S,)."""
        return np.arange(int(self.lengths.max()), dtype=np.int64)

    @cached_property
    def is_token(self) -> NDArray[np.bool_]:
        """Whether a cell of the padded view holds a token, (B, S)."""
        return np.asarray(self.columns[None, :] < self.lengths[:, None])

    @cached_property
    def seen(self) -> NDArray[np.int64]:
        """Number of tokens of each input that its other tokens see, (B,)."""
        hidden = np.fromiter((item.expansion for item in self.items), np.int64, len(self.items))
        return self.lengths - hidden

    def packed(self) -> dict[str, Make]:
        """Return how to make each packed array; `collate` describes them."""
        return {
            "ids": self._ids,
            "positions": self._positions,
            "gather": self._gather,
            "scatter": lambda: np.flatnonzero(self.is_token).astype(np.int64),
            "lengths": lambda: self.seen.astype(np.int32),
            "has_equal_lengths": lambda: np.asarray(bool((self.seen == len(self.columns)).all())),
            "types": self._types,
            "axes": lambda: np.tile(self._positions(), (picture_tokens.AXES, 1)),
            "picture_places": lambda: np.zeros(0, np.int64),
        }

    def padded(self) -> dict[str, Make]:
        """Return how to make each padded array; `collate` describes them."""
        return {
            "input_ids": lambda: self._spread(self._ids()),
            "attention_mask": lambda: self.is_token.astype(np.int64),
            "token_type_ids": lambda: self._spread(self._types()),
        }

    def pixels(self) -> NDArray[np.uint8]:
        """Return the pixels of all pictures, (B, P, P, 3), or the patches of pictures in their own shapes."""
        pixels = [item.pixels for item in self.items if item.pixels is not None]
        if pixels[0].ndim < PATCHED_AXES:
            return np.stack(pixels)
        return np.concatenate([each.reshape(-1, *each.shape[2:]) for each in pixels])

    def grids(self) -> NDArray[np.int64]:
        """Return the rows and columns of patches of pictures in their own shapes, (B, 2)."""
        return np.array([item.pixels.shape[:2] for item in self.items if item.pixels is not None])

    def _ids(self) -> NDArray[np.int64]:
        return np.concatenate([item.ids for item in self.items], dtype=np.int64)

    def _positions(self) -> NDArray[np.int64]:
        return np.broadcast_to(self.columns, self.is_token.shape)[self.is_token]

    def _gather(self) -> NDArray[np.int64]:
        starts = np.cumsum(self.lengths) - self.lengths
        return np.where(self.is_token, starts[:, None] + self.columns[None, :], 0)

    def _types(self) -> NDArray[np.int64]:
        """Return 1 for tokens of a pair's second text, else 0; (T,)."""
        if not any(item.second_start for item in self.items):
            return np.zeros(int(self.lengths.sum()), np.int64)
        starts = np.array([item.second_start or item.tokens for item in self.items])
        is_second = self.columns[None, :] >= starts[:, None]
        return is_second[self.is_token].astype(np.int64)

    def _spread(self, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        """Spread values of tokens, (T,), over the padded view, (B, S), with zeros at padding."""
        spread = np.zeros(self.is_token.shape, np.int64)
        spread[self.is_token] = flat
        return spread
