"""The arrays that a device graph takes, made of a packed batch and padded to a shape where that is larger. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.layout.pooling_arrays import POOLING_INPUTS, pooling_arrays
from nestvec.backends.cuda.layout.shapes import Shape, padded_lengths
from nestvec.engine.types import Batch

Array = NDArray[Any]
Lengths = NDArray[np.int64]
# The one input that stays in the host's memory.
BOUNDS: Final = "bounds"
PAGES: Final = ("key_pages", "value_pages")
DEVICE_INPUTS: Final = frozenset(
    {
        "ids",
        "positions",
        "types",
        "gather",
        "cumulative_lengths",
        "token_offset",
        "row_places",
        "past_lengths",
        "block_table",
        BOUNDS,
        *PAGES,
        *POOLING_INPUTS,
    }
)


@dataclass(frozen=True, slots=True)
class Feeds:
    """The arrays that a run is fed, each made when it is asked for.

    Attributes:
        lengths: Number of tokens of each input, padding inputs included, (B,), int64.
        make: A function for each input's name that makes its array.
        pages: Number of pages of keys and values that the inputs take.
    """

    lengths: Lengths
    make: Mapping[str, Callable[[], Array]]
    pages: int

    def __getitem__(self, name: str) -> Array:
        """Make the array of an input."""
        return self.make[name]()


def packed_feeds(batch: Batch, shape: Shape, pooling: str, page_tokens: int) -> Feeds:
    """Return what a run of a packed batch is fed.

    Args:
        batch: A packed batch.
        shape: Sizes of the run; the batch is padded to them.
        pooling: How the graph pools; "" where it does not.
        page_tokens: Number of tokens of a page; 0 where there are no pages.

    Raises:
        ValueError: The batch does not fit into the shape.
    """
    lengths = padded_lengths(batch.lengths, shape)
    skip = np.zeros(shape.inputs, np.int64)
    skip[: len(batch.skips)] = batch.skips
    starts = np.cumsum(lengths) - lengths
    columns = np.arange(shape.row_length, dtype=np.int64)
    pages = -(-lengths // page_tokens) if page_tokens else np.zeros(shape.inputs, np.int64)
    make: dict[str, Callable[[], Array]] = {
        "ids": lambda: _padded(batch.arrays["ids"], shape.tokens),
        "types": lambda: _padded(batch.arrays["types"], shape.tokens),
        "positions": lambda: _positions(starts, lengths, shape.tokens),
        "gather": lambda: _gather(starts, lengths, columns),
        "cumulative_lengths": lambda: np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        "token_offset": lambda: _token_offset(lengths, columns),
        # No table of positions has more rows than the longest input has tokens.
        "row_places": lambda: np.minimum(columns, shape.longest - 1),
        "past_lengths": lambda: np.zeros(shape.inputs, np.int32),
        "block_table": lambda: _block_table(pages, max(1, -(-shape.longest // page_tokens))),
        BOUNDS: lambda: np.array([shape.longest, shape.longest], np.int32),
        **pooling_arrays(pooling, lengths, skip, shape.row_length),
    }
    return Feeds(lengths, make, int(pages.sum()))


def _padded(values: Array, tokens: int) -> Array:
    """Return the values of all tokens with zeros behind, (T,)."""
    if len(values) == tokens:
        return values
    return np.concatenate([values, np.zeros(tokens - len(values), values.dtype)])


def _positions(starts: Lengths, lengths: Lengths, tokens: int) -> Array:
    """Return the position of each token in its input, (T,), int64."""
    positions = np.arange(tokens, dtype=np.int64)
    positions -= np.repeat(starts, lengths)
    return positions


def _gather(starts: Lengths, lengths: Lengths, columns: Lengths) -> Array:
    """Return the packed index of the token in each cell, 0 for cells of padding, (B, S), int64."""
    is_token = columns[None, :] < lengths[:, None]
    return np.where(is_token, starts[:, None] + columns[None, :], 0)


def _token_offset(lengths: Lengths, columns: Lengths) -> Array:
    """Return the indices of the cells that hold a token, then of those that hold none, (B, S), int32."""
    is_token = (columns[None, :] < lengths[:, None]).reshape(-1)
    order = np.concatenate([np.flatnonzero(is_token), np.flatnonzero(~is_token)])
    return order.astype(np.int32).reshape(len(lengths), len(columns))


def _block_table(pages: Lengths, width: int) -> Array:
    """Return the pages of each input, which lie side by side, (B, width), int32."""
    first = np.cumsum(pages) - pages
    table = first[:, None] + np.arange(width)[None, :]
    clipped: Array = np.clip(table, 0, max(int(pages.sum()) - 1, 0)).astype(np.int32)
    return clipped
