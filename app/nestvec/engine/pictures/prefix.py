"""How a model takes pictures among tokens: what is asked of any such way, and Qwen's, by patches that are merged.

Qwen's pictures keep their own shapes. Bytes are those of transformers' `Qwen2VLImageProcessor` on Pillow, which resizes
before it scales; scaling is done by the graph.

Source: `smart_resize` of transformers' image_processing_qwen2_vl.py.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from nestvec.engine.pictures.picture import PatchGrid
from nestvec.engine.pictures.preprocessing import PixelArray, content_ids

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS: Final = 3
# Of pictures that check a graph, widths in heights: a square, a wide picture and a high one.
PROBE_SHAPES: Final = (1.0, 2.5, 0.4)


@dataclass(frozen=True, slots=True)
class TokenizedPicture:
    """A picture as it runs among tokens.

    Attributes:
        ids: What stands for it where texts have token ids, (n,), int32: a number below zero for each of its own tokens,
            and the tokens before, between and behind these. Of a model that reads no texts with pictures they are the
            whole input. A token of a text stands between any two grids.
        patches: (N, values), uint8, those of a token one behind the other.
        grids: Rows and columns of patches, and how many of either make a token: one for each tile that it is cut into.
    """

    ids: NDArray[np.int32]
    patches: PixelArray
    grids: tuple[PatchGrid, ...]


class PrefixTower(ABC):
    """How a model takes pictures among tokens: what the engine asks of it, whatever the family."""

    @abstractmethod
    def tokens_of(self, width: int, height: int) -> int:
        """Return the number of tokens of a picture of so many pixels, without those before, between and behind."""

    @abstractmethod
    def pixel_bytes_of(self, width: int, height: int) -> int:
        """Return the size in memory of a picture's pixels as the model takes them."""

    @abstractmethod
    def extra_cost(self, grids: Sequence[PatchGrid]) -> float:
        """Return what pictures cost beyond as many tokens of texts."""

    @abstractmethod
    def read(self, image: "Image") -> TokenizedPicture:
        """Resize an RGB picture, and return it as it runs."""

    @abstractmethod
    def cut(self, pixels: PixelArray) -> TokenizedPicture:
        """Return pixels of one of `probe_sizes`, (height, width, 3), as they run."""

    @abstractmethod
    def probe_sizes(self) -> Sequence[tuple[int, int]]:
        """Return heights and widths of pictures that check a graph, of as few tokens as there may be."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Return what of it decides vectors, for the space's fingerprint."""


@dataclass(frozen=True, slots=True)
class PicturePrefix(PrefixTower):
    """How Qwen's models take pictures: resized to whole tokens in about their own shape.

    Attributes:
        patch_size: Width and height of a patch in pixels, p.
        merge_size: So many rows and columns of patches make a token, m.
        min_pixels: Fewest pixels that a picture is resized to.
        max_pixels: Most pixels of it.
        resample: Pillow's number of the filter.
        before_ids: The tokens before those of a picture.
        behind_ids: The tokens behind them.
        token_cost: What a token of a picture costs, tower and decoder together, in tokens of a text.
        pair_cost: What each pair of patches of a picture costs besides, whose attention is of all with all.
    """

    patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    resample: int
    before_ids: tuple[int, ...]
    behind_ids: tuple[int, ...]
    token_cost: float = 1.0
    pair_cost: float = 0.0

    @property
    def factor(self) -> int:
        """Width and height in pixels of what makes a token."""
        return self.patch_size * self.merge_size

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that a picture is resized to: multiples of `factor`, within the bounds.

        Its decoder bounds how long and narrow it may be.
        """
        factor, pixels = self.factor, width * height
        # Halves are rounded to even numbers, as in the library.
        wide, high = (round(side / factor) * factor for side in (width, height))
        if wide * high > self.max_pixels:
            shrink = math.sqrt(pixels / self.max_pixels)
            wide, high = (
                max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height)
            )
        elif wide * high < self.min_pixels:
            grow = math.sqrt(self.min_pixels / pixels)
            wide, high = (math.ceil(side * grow / factor) * factor for side in (width, height))
        return wide, high

    @override
    def tokens_of(self, width: int, height: int) -> int:
        """Return the number of tokens of a picture of so many pixels, without those before and behind it."""
        wide, high = self.resized_size(width, height)
        return wide * high // self.factor**2

    @override
    def pixel_bytes_of(self, width: int, height: int) -> int:
        """Return the size in memory of a picture's pixels as the model takes them."""
        wide, high = self.resized_size(width, height)
        return CHANNELS * wide * high

    @override
    def extra_cost(self, grids: Sequence[PatchGrid]) -> float:
        """Return what pictures cost beyond as many tokens of texts."""
        patches = [rows * columns for rows, columns, _ in grids]
        by_token = (self.token_cost - 1) * sum(patches) / self.merge_size**2
        return by_token + self.pair_cost * sum(count * count for count in patches)

    @override
    def read(self, image: "Image") -> TokenizedPicture:
        """Resize an RGB picture, and return it as it runs: patches (N, p * p * 3) of one grid."""
        from PIL import Image

        size = self.resized_size(image.width, image.height)
        resized = np.asarray(image.resize(size, Image.Resampling(self.resample)))
        return self.cut(resized)

    @override
    def cut(self, pixels: PixelArray) -> TokenizedPicture:
        """Return pixels of a size that a picture is resized to, (height, width, 3), as they run."""
        patch, merge = self.patch_size, self.merge_size
        rows, columns = (side // patch for side in pixels.shape[:2])
        shape = (rows // merge, merge, patch, columns // merge, merge, patch, CHANNELS)
        ordered = pixels.reshape(shape).transpose(0, 3, 1, 4, 2, 5, 6)
        flat = np.ascontiguousarray(ordered).reshape(rows * columns, patch * patch * CHANNELS)
        grid = rows, columns, merge
        own = content_ids(flat, rows * columns // merge**2, np.asarray(grid, np.int64).tobytes())
        before, behind = (np.array(ids, np.int32) for ids in (self.before_ids, self.behind_ids))
        return TokenizedPicture(np.concatenate([before, own, behind]), flat, (grid,))

    @override
    def probe_sizes(self) -> Sequence[tuple[int, int]]:
        """Return heights and widths of pictures that check a graph, whatever the most pixels are."""
        sizes = []
        for shape in PROBE_SHAPES:
            high = math.sqrt(self.min_pixels / shape)
            width, height = self.resized_size(round(high * shape), round(high))
            sizes.append((height, width))
        return sizes

    @override
    def summary(self) -> dict[str, Any]:
        """Return what of it decides vectors, for the space's fingerprint."""
        return {
            "patch_size": self.patch_size,
            "merge_size": self.merge_size,
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
            "resample": self.resample,
            "around": (*self.before_ids, *self.behind_ids),
        }
