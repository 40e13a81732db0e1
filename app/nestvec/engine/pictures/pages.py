"""How a model takes pictures of one size among tokens: a square of patches, then what it is told of them.

Bytes are those of transformers' image processors on Pillow, which resize before they scale; scaling is done by the
graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from typing_extensions import override

from nestvec.engine.pictures.picture import PatchGrid
from nestvec.engine.pictures.prefix import CHANNELS, PrefixTower, TokenizedPicture
from nestvec.engine.pictures.preprocessing import PictureTower, PixelArray, content_ids

if TYPE_CHECKING:
    from PIL.Image import Image

PROBES: Final = 2  # of a thousand tokens each, at every start


@dataclass(frozen=True, slots=True)
class PagePrefix(PrefixTower):
    """How ColPali takes pictures.

    Attributes:
        square: How a picture is resized, and its number of tokens: its patches.
        patch_size: Width and height of a patch in pixels, p; pixels beyond whole patches are left out.
        behind_ids: The tokens behind those of a picture, before which there is none.
        token_cost: What a token of a picture costs, tower and decoder together, in tokens of a text.
        pair_cost: What each pair of patches of a picture costs besides, whose attention is of all with all.
    """

    square: PictureTower
    patch_size: int
    behind_ids: tuple[int, ...]
    token_cost: float = 1.0
    pair_cost: float = 0.0

    @property
    def side_patches(self) -> int:
        """Number of patches in a row, and of rows."""
        return self.square.size // self.patch_size

    @override
    def tokens_of(self, width: int, height: int) -> int:
        """Return the number of tokens of a picture, without those behind it: all have as many."""
        return self.square.tokens

    @override
    def pixel_bytes_of(self, width: int, height: int) -> int:
        """Return the size in memory of a picture's pixels as the model takes them."""
        return CHANNELS * (self.side_patches * self.patch_size) ** 2

    @override
    def extra_cost(self, grids: Sequence[PatchGrid]) -> float:
        """Return what pictures cost beyond as many tokens of texts."""
        patches = self.square.tokens
        return len(grids) * patches * (self.token_cost - 1 + self.pair_cost * patches)

    @override
    def read(self, image: "Image") -> TokenizedPicture:
        """Resize an RGB picture, and return it as it runs: patches (N, p * p * 3), row by row, of one grid."""
        return self.cut(self.square.pixels(image))

    @override
    def cut(self, pixels: PixelArray) -> TokenizedPicture:
        """Return pixels of the size that the model takes, (S, S, 3), as they run."""
        side, patch = self.side_patches, self.patch_size
        used = pixels[: side * patch, : side * patch]
        ordered = used.reshape(side, patch, side, patch, CHANNELS).transpose(0, 2, 1, 3, 4)
        flat = np.ascontiguousarray(ordered).reshape(side * side, patch * patch * CHANNELS)
        own, behind = content_ids(flat, len(flat)), np.array(self.behind_ids, np.int32)
        return TokenizedPicture(np.concatenate([own, behind]), flat, ((side, side, 1),))

    @override
    def probe_sizes(self) -> Sequence[tuple[int, int]]:
        """Return heights and widths of pictures that check a graph."""
        return [(self.square.size, self.square.size)] * PROBES

    @override
    def summary(self) -> dict[str, Any]:
        """Return what of it decides vectors, for the space's fingerprint."""
        return {
            **self.square.summary(),
            "patch_size": self.patch_size,
            "behind": self.behind_ids,
        }
