"""What a batch costs on a device: every token once, and what attention kernels really compute. Pure."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# An input costs bookkeeping, however short it is; this also bounds B.
MIN_INPUT_TOKENS: Final = 8
# Flash attention computes so many queries at once, whether there are as many or not.
TILE_QUERIES: Final = 128


@dataclass(frozen=True, slots=True)
class DeviceCost:
    """Prices a batch in token equivalents on a device; `engine.backend.CostModel` is the CPU's.

    Attributes:
        hidden_size: H.
        is_padded: Whether the scores of each input have a bias of its own, B·S² cells, as DeBERTa's have. Otherwise
            each input costs its own square only, also where all inputs share a bias.
    """

    hidden_size: int
    is_padded: bool = False

    def __call__(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch; monotone in each length and in their number.

        Args:
            lengths: Number of tokens of each input, (B,), int64.
        """
        if len(lengths) == 0:
            return 0.0
        tokens = int(np.maximum(lengths, MIN_INPUT_TOKENS).sum())
        area = int((-(-lengths // TILE_QUERIES) * TILE_QUERIES * lengths).sum())
        if self.is_padded:
            longest = max(int(lengths.max()), MIN_INPUT_TOKENS)
            tokens = len(lengths) * longest
            area = tokens * longest
        return tokens + area / (6 * self.hidden_size)
