"""A packed batch to what a device graph takes, filled up to a shape where that is larger. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.pooling_arrays import POOLING_INPUTS, pooling_arrays
from nestvec.backends.cuda.shapes import Shape, filled_up
from nestvec.engine.types import Batch

Array = NDArray[Any]
BOUNDS: Final = "bounds"  # the one input that stays in the host's memory
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
    """What a run is fed, made when asked for.

    Attributes:
        lengths: Of inputs, padding among them, (B,).
        make: By name.
        pages: Pages that its inputs take.
    """

    lengths: NDArray[np.int64]
    make: Mapping[str, Callable[[], Array]]
    pages: int

    def __getitem__(self, name: str) -> Array:
        """Make an array."""
        return self.make[name]()


def feeds(batch: Batch, shape: Shape, pooling: str, page_tokens: int) -> Feeds:
    """What a run is fed.

    Args:
        batch: Packed.
        shape: Of the run; the batch is filled up with padding.
        pooling: The graph's; "" for none.
        page_tokens: Of a page; 0 where there are none.

    Raises:
        ValueError: The batch does not fit into the shape.
    """
    lengths = filled_up(batch.lengths, shape)
    skip = np.zeros(shape.inputs, np.int64)
    skip[: len(batch.skips)] = batch.skips
    starts = np.cumsum(lengths) - lengths
    columns = np.arange(shape.row, dtype=np.int64)
    pages = -(-lengths // page_tokens) if page_tokens else np.zeros(shape.inputs, np.int64)

    def padded(name: str) -> Callable[[], Array]:
        def make() -> Array:
            own = batch.arrays[name]
            return np.concatenate([own, np.zeros(shape.tokens - len(own), own.dtype)])

        return make

    def positions() -> Array:
        return np.arange(shape.tokens, dtype=np.int64) - np.repeat(starts, lengths)

    def gather() -> Array:
        is_token = columns[None, :] < lengths[:, None]
        return np.where(is_token, starts[:, None] + columns[None, :], 0)

    def token_offset() -> Array:
        is_token = (columns[None, :] < lengths[:, None]).reshape(-1)
        order = np.concatenate([np.flatnonzero(is_token), np.flatnonzero(~is_token)])
        return order.astype(np.int32).reshape(shape.inputs, shape.row)

    def block_table() -> Array:
        width = max(1, -(-shape.longest // page_tokens))
        first = np.cumsum(pages) - pages
        table = first[:, None] + np.arange(width)[None, :]
        found: Array = np.clip(table, 0, max(int(pages.sum()) - 1, 0)).astype(np.int32)
        return found

    return Feeds(
        lengths,
        {
            "ids": padded("ids"),
            "types": padded("types"),
            "positions": positions,
            "gather": gather,
            "cumulative_lengths": lambda: np.concatenate([[0], np.cumsum(lengths)]).astype(
                np.int32
            ),
            "token_offset": token_offset,
            # No table of positions has more rows than the longest input has tokens.
            "row_places": lambda: np.minimum(columns, shape.longest - 1),
            "past_lengths": lambda: np.zeros(shape.inputs, np.int32),
            "block_table": block_table,
            BOUNDS: lambda: np.array([shape.longest, shape.longest], np.int32),
            **pooling_arrays(pooling, lengths, skip, shape.row),
        },
        int(pages.sum()),
    )
