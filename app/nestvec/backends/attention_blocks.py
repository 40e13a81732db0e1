"""Lays windowed attention out in blocks: which keys each block of queries is given, and which of them each query sees.

A token of a window attends to its neighbours only, so of the scores of all tokens with all nearly none are used. Here
128 queries and the keys around them make a block, whatever inputs a batch has; blocks have one size, so they run as one
batch, and an input is padded to whole blocks only (as in Longformer, arXiv:2004.05150, section 3). 128 queries were
measured best (Zen 4, windows of 129, 1,024 to 4,096 tokens): 64, 192 and 256 are 4 to 20% slower.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import BLOCK_QUERIES, LONG_TOKENS

# As in the exporter: exp of it is 0, and unlike -infinity it makes no NaN of an empty row.
MASKED_SCORE: Final = -1e9
# What graphs are fed whose branch for short inputs has no use for blocks.
NO_BLOCKS: Final[Mapping[str, NDArray[Any]]] = {
    "block_queries": np.zeros((1, 1), np.int64),
    "block_keys": np.zeros((1, 1), np.int64),
    "block_mask": np.zeros((1, 1, 1, 1), np.float32),
    "block_scatter": np.zeros(1, np.int64),
}
BLOCK_INPUTS: Final = frozenset(NO_BLOCKS)


@dataclass(frozen=True, slots=True)
class AttentionBlocks:
    """The layout of a graph's windows.

    Attributes:
        window: Tokens attend to tokens at most `window` - 1 away.
        is_causal: Whether they attend to themselves and those before them only.
        has_branches: Whether the graph has another way for inputs that are short.
    """

    window: int
    is_causal: bool
    has_branches: bool

    @classmethod
    def parse(cls, text: str, *, has_branches: bool) -> Self:
        """Read the layout as the exporter writes it, such as "65,0"."""
        window, is_causal = text.split(",")
        return cls(int(window), bool(int(is_causal)), has_branches)

    def arrays(
        self, lengths: NDArray[np.int64], seen: NDArray[np.integer[Any]]
    ) -> Mapping[str, NDArray[Any]]:
        """Make what the graph's block inputs are fed.

        Args:
            lengths: Number of tokens of each input, [B], int64.
            seen: Number of tokens of each input, from its first, that its tokens may attend to, [B].

        Returns:
            `block_queries` [N, Q] and `block_keys` [N, K], int64, indices into 0 … T-1; `block_mask` [N, 1, Q, K],
            float32; `block_scatter` [T], int64, indices into 0 … N*Q-1. Inputs that are all short make one block each.
        """
        longest = int(lengths.max())
        is_whole = longest <= max(LONG_TOKENS, self.window)
        if is_whole and self.has_branches:
            return NO_BLOCKS
        reach = self.window - 1
        queries = longest if is_whole else BLOCK_QUERIES
        # Positions of a block's queries and keys, counted from its first query, [Q] and [K].
        rows = np.arange(queries)
        columns = rows if is_whole else np.arange(-reach, queries + reach * (not self.is_causal))
        counts = -(-lengths // queries)
        owner = np.repeat(np.arange(len(lengths)), counts)  # the input of each block, [N]
        number = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
        first = (number * queries)[:, None]
        start = (np.cumsum(lengths) - lengths)[owner][:, None]
        last = lengths[owner][:, None] - 1
        keys = first + columns
        is_seen = (keys >= 0) & (keys < seen[owner][:, None])
        distances = columns[None, :] - rows[:, None]
        is_near = (distances >= -reach) & (distances <= (0 if self.is_causal else reach))
        is_masked = ~(is_near[None] & is_seen[:, None, :])
        return {
            "block_queries": start + np.minimum(first + rows, last),
            "block_keys": start + np.clip(keys, 0, last),
            "block_mask": (is_masked * np.float32(MASKED_SCORE))[:, None],
            "block_scatter": np.flatnonzero(first + rows <= last),
        }
