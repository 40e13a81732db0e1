"""What a batch costs on a device: every token once, and what attention kernels really compute. Pure."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEAST_TOKENS: Final = 8  # an input costs bookkeeping, however short it is; it also bounds B
TILE: Final = (
    128  # flash attention computes so many queries at once, whether there are as many or not
)


@dataclass(frozen=True, slots=True)
class DeviceCost:
    """Price of a batch in token equivalents; see `backend.CostModel` for the CPU's.

    Attributes:
        hidden_size: H.
        is_padded: Whether scores of each input have a bias of its own, B·S² cells, as DeBERTa's; else each input costs
            its own square only, also where all share a bias.
    """

    hidden_size: int
    is_padded: bool = False

    def __call__(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch; monotone in each length and in their number.

        Args:
            lengths: Tokens of each input, (B,), int64.
        """
        if len(lengths) == 0:
            return 0.0
        tokens = int(np.maximum(lengths, LEAST_TOKENS).sum())
        area = int((-(-lengths // TILE) * TILE * lengths).sum())
        if self.is_padded:
            longest = max(int(lengths.max()), LEAST_TOKENS)
            tokens = len(lengths) * longest
            area = tokens * longest
        return tokens + area / (6 * self.hidden_size)
