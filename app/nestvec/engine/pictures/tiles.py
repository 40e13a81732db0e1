"""How an encoder takes pictures among the tokens of a text in tiles: whole squares of a picture, then all of it in one.

Bytes are those of transformers' `Idefics3ImageProcessorPil`, which resizes before it scales; scaling is done by the
graph. What stands around and between the tiles' tokens is that of its processor.

Source: `resize`, `resize_for_vision_encoder` and `split_images` of transformers' image_processing_pil_idefics3.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from typing_extensions import override

from nestvec.engine.pictures.picture import PatchGrid
from nestvec.engine.pictures.prefix import PrefixTower, TokenizedPicture
from nestvec.engine.pictures.preprocessing import PixelArray, content_ids
from nestvec.engine.pictures.transparency import on_white

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS: Final = 3
# Where a frame has the tokens of a tile.
TILE: Final = -1
# The shape of a picture that is one tile: it has no rows and no columns.
WHOLE: Final = (0, 0)
PROBES: Final = 2  # of one tile each, as a tile takes some seconds

TileShape = tuple[int, int]  # rows and columns of tiles, without the one of the whole picture


@dataclass(frozen=True, slots=True)
class TiledPrefix(PrefixTower):
    """How a model takes pictures in tiles.

    Attributes:
        tile_size: Width and height of a tile in pixels, S.
        patch_size: Width and height of a patch in pixels, p.
        merge_size: So many rows and columns of patches make a token, m.
        longest_side: What a picture's longer side is resized to, in pixels, before it is made whole tiles.
        splits: Whether a picture is more than the tile of the whole.
        is_on_white: Whether a colour that stands for transparency is white.
        resample: Pillow's number of the filter.
        frames: Token ids of the whole input for each shape that a picture may have, `TILE` once for each tile.
        token_cost: What a token of a tile costs, tower and encoder together, in tokens of a text.
        pair_cost: What each pair of patches of a tile costs besides, whose attention is of all with all.
    """

    tile_size: int
    patch_size: int
    merge_size: int
    longest_side: int
    splits: bool
    is_on_white: bool
    resample: int
    frames: Mapping[TileShape, tuple[int, ...]]
    token_cost: float = 1.0
    pair_cost: float = 0.0

    @property
    def side_patches(self) -> int:
        """Number of patches in a row of a tile, and of rows; pixels beyond whole patches are left out."""
        return self.tile_size // self.patch_size

    @property
    def tile_tokens(self) -> int:
        """Number of tokens of a tile."""
        return (self.side_patches // self.merge_size) ** 2

    def shape_of(self, width: int, height: int) -> TileShape:
        """Return the rows and columns of tiles of a picture of so many pixels; `WHOLE` for one tile.

        Its decoder bounds how long and narrow it may be.
        """
        return self._shape(*self._tiled_size(*self._fitted_size(width, height)))

    @override
    def tokens_of(self, width: int, height: int) -> int:
        """Return the number of tokens of the tiles of a picture of so many pixels."""
        return self._tiles_of(width, height) * self.tile_tokens

    @override
    def pixel_bytes_of(self, width: int, height: int) -> int:
        """Return the size in memory of a picture's pixels as the model takes them."""
        tiles = self._tiles_of(width, height)
        return CHANNELS * tiles * (self.side_patches * self.patch_size) ** 2

    @override
    def extra_cost(self, grids: Sequence[PatchGrid]) -> float:
        """Return what tiles cost beyond as many tokens of texts."""
        patches = [rows * columns for rows, columns, _ in grids]
        by_token = (self.token_cost - 1) * sum(patches) / self.merge_size**2
        return by_token + self.pair_cost * sum(count * count for count in patches)

    def tiles(self, image: "Image") -> tuple[PixelArray, TileShape]:
        """Return the tiles of an RGB picture, (n, S, S, 3), row by row, then that of the whole; and their shape."""
        from PIL import Image

        resample, size = Image.Resampling(self.resample), self.tile_size
        image = on_white(image) if self.is_on_white else image
        image = image.resize(self._fitted_size(image.width, image.height), resample)
        parts: PixelArray = np.empty((0, size, size, CHANNELS), np.uint8)
        if self.splits:
            image = image.resize(self._tiled_size(image.width, image.height), resample)
        shape = rows, columns = self._shape(image.width, image.height)
        if shape != WHOLE:
            grid = np.asarray(image).reshape(rows, size, columns, size, CHANNELS)
            parts = grid.transpose(0, 2, 1, 3, 4).reshape(-1, size, size, CHANNELS)
        whole = np.asarray(image.resize((size, size), resample))
        return np.concatenate([parts, whole[None]]), shape

    @override
    def read(self, image: "Image") -> TokenizedPicture:
        """Cut an RGB picture into tiles, and return it as it runs."""
        return self._tokenized(*self.tiles(image))

    @override
    def cut(self, pixels: PixelArray) -> TokenizedPicture:
        """Return a picture that is one tile, (S, S, 3), as it runs."""
        return self._tokenized(pixels[None], WHOLE)

    @override
    def probe_sizes(self) -> Sequence[tuple[int, int]]:
        """Return heights and widths of pictures that check a graph."""
        return [(self.tile_size, self.tile_size)] * PROBES

    @override
    def summary(self) -> dict[str, Any]:
        """Return what of it decides vectors, for the space's fingerprint."""
        return {
            "tile_size": self.tile_size,
            "patch_size": self.patch_size,
            "merge_size": self.merge_size,
            "longest_side": self.longest_side,
            "splits": self.splits,
            "is_on_white": self.is_on_white,
            "resample": self.resample,
            "frames": sorted(self.frames.items()),
        }

    def _tokenized(self, tiles: PixelArray, shape: TileShape) -> TokenizedPicture:
        patch, merge, side = self.patch_size, self.merge_size, self.side_patches
        used, blocks = side * patch, side // merge
        split = (len(tiles), blocks, merge, patch, blocks, merge, patch, CHANNELS)
        ordered = tiles[:, :used, :used].reshape(split).transpose(0, 1, 4, 2, 5, 3, 6, 7)
        patches = np.ascontiguousarray(ordered).reshape(-1, patch * patch * CHANNELS)
        frame = np.array(self.frames[shape], np.int32)
        ids = np.repeat(frame, np.where(frame == TILE, self.tile_tokens, 1))
        own = content_ids(
            patches, len(tiles) * self.tile_tokens, np.array(shape, np.int64).tobytes()
        )
        ids[ids == TILE] = own
        return TokenizedPicture(ids, patches, ((side, side, merge),) * len(tiles))

    def _tiles_of(self, width: int, height: int) -> int:
        rows, columns = self.shape_of(width, height)
        return rows * columns + 1

    def _fitted_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height whose longer side is `longest_side`; the shorter one is even."""
        longest, ratio = self.longest_side, width / height
        if width >= height:
            fitted = int(longest / ratio)
            return longest, max(fitted + fitted % 2, 1)
        fitted = int(longest * ratio)
        return max(fitted + fitted % 2, 1), longest

    def _tiled_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height in pixels of whole tiles."""
        size, ratio = self.tile_size, width / height
        if width >= height:
            width = math.ceil(width / size) * size
            return width, math.ceil(int(width / ratio) / size) * size
        height = math.ceil(height / size) * size
        return math.ceil(int(height * ratio) / size) * size, height

    def _shape(self, width: int, height: int) -> TileShape:
        if not self.splits or max(width, height) == self.tile_size:
            return WHOLE
        return height // self.tile_size, width // self.tile_size
