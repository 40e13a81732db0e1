"""RGB pictures to patches in their own shape: as many as fit a budget, as SigLIP 2 NaFlex takes them. Pure.

Bytes are those of transformers' image processors on Pillow, which resize before they scale and cut; scaling is done by
the graph.

Source: `get_image_size_for_max_num_patches` of transformers' image_processing_siglip2.py; NaFlex is of SigLIP 2
(arXiv:2502.14786).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.pictures.prefix import PrefixTower
from nestvec.engine.pictures.preprocessing import PixelArray, content_ids
from nestvec.engine.pictures.tower import VisionTower
from nestvec.errors import UnsupportedError

if TYPE_CHECKING:
    from PIL.Image import Image

# Between these a scale is searched, until they are so close.
SCALE_STEP: Final = 1e-5
MIN_SCALE: Final = SCALE_STEP / 10
MAX_SCALE: Final = 100.0
# Of pictures that check a graph: square, wide, high and of one row.
PROBE_GRIDS: Final = ((4, 4), (2, 7), (9, 3), (1, 5))
GRID_AXES: Final = 2
# With fewer a long picture would be known by too few numbers; with more one would be a batch of its own. The model was
# trained with 1,024 at most.
MIN_PATCHES: Final = 16
MAX_PATCHES: Final = 4096
# Of a single pixel in the largest patches that are read, at the largest scale.
FEWEST_TOKENS: Final = 4


@dataclass(frozen=True, slots=True)
class NaFlexTower:
    """How a model takes pictures in their own shape.

    Attributes:
        patch_size: Width and height of a patch in pixels, p.
        max_patches: Most patches of a picture, which are its tokens.
        resample: Pillow's number of the filter.
        token_cost: What one of the tokens costs, in tokens of the tower of texts.
    """

    patch_size: int
    max_patches: int
    resample: int
    token_cost: float = 1.0

    @property
    def tokens(self) -> int:
        """Most tokens that a picture runs as."""
        return self.max_patches

    @property
    def pixel_bytes(self) -> int:
        """Most bytes of a picture's pixels in memory."""
        return 3 * self.patch_size**2 * self.max_patches

    def fewest_tokens(self) -> int:
        """Return the fewest tokens that a picture runs as, before its size is known."""
        return FEWEST_TOKENS

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Return the rows and columns of patches that a picture of so many pixels becomes: 40 steps at most.

        Its sides are scaled by one number, the largest found with which there are not too many patches, and then up to
        whole patches. A picture and the same turned have as many patches.
        """
        low, high = MIN_SCALE, MAX_SCALE
        while high - low >= SCALE_STEP:
            scale = (low + high) / 2
            if self._patches(height, scale) * self._patches(width, scale) <= self.max_patches:
                low = scale
            else:
                high = scale
        return self._patches(height, low), self._patches(width, low)

    def _patches(self, size: int, scale: float) -> int:
        """Return the number of patches along a side."""
        return max(1, math.ceil(size * scale / self.patch_size))

    def pixels(self, image: "Image") -> PixelArray:
        """Return the patches of an RGB picture, (rows, columns, p, p, 3)."""
        from PIL import Image

        rows, columns = self.grid(*image.size)
        size = (columns * self.patch_size, rows * self.patch_size)
        return self.arranged(np.asarray(image.resize(size, Image.Resampling(self.resample))))

    def arranged(self, pixels: PixelArray) -> PixelArray:
        """Cut pixels, (height, width, 3), into whole patches, (rows, columns, p, p, 3)."""
        side = self.patch_size
        height, width = pixels.shape[:2]
        grid = pixels.reshape(height // side, side, width // side, side, 3)
        return np.ascontiguousarray(grid.swapaxes(1, 2))

    def ids(self, pixels: PixelArray) -> NDArray[np.int32]:
        """Return what stands for a picture where texts have token ids, one for each patch.

        Two pictures of one colour may have the same bytes in another shape, and have other vectors.

        Args:
            pixels: (rows, columns, p, p, 3).
        """
        grid = pixels.shape[:GRID_AXES]
        return content_ids(pixels, math.prod(grid), np.array(grid, np.int32).tobytes())

    def probe_sizes(self) -> Sequence[tuple[int, int]]:
        """Return heights and widths of pictures that check a graph, whatever `max_patches` is."""
        side = self.patch_size
        return [(rows * side, columns * side) for rows, columns in PROBE_GRIDS]

    def summary(self) -> dict[str, Any]:
        """Return what of it decides vectors, for the space's fingerprint."""
        return {
            "patch_size": self.patch_size,
            "max_patches": self.max_patches,
            "resample": self.resample,
        }


def tower_of_call(
    tower: VisionTower | PrefixTower | None, patches: int | None
) -> VisionTower | PrefixTower | None:
    """Return how a call's pictures are taken, which may say how many patches each has at most.

    Vectors of one picture by other numbers are of one space, as those of the picture in another resolution are.

    Args:
        tower: How the model takes pictures.
        patches: The call's number; None for the model's.

    Raises:
        UnsupportedError: The model takes pictures as its folder says.
    """
    if patches is None:
        return tower
    if not isinstance(tower, NaFlexTower):
        raise UnsupportedError(
            "this model resizes pictures as its folder says, so none has more or fewer patches",
            param="mm_processor_kwargs",
        )
    return replace(tower, max_patches=patches)


def with_patches(
    tower: VisionTower | PrefixTower | None, patches: int | None
) -> VisionTower | PrefixTower | None:
    """Return how a model takes pictures where an operator says how many patches; other models take them as before."""
    if patches is None or not isinstance(tower, NaFlexTower):
        return tower
    return replace(tower, max_patches=patches)
