"""VisionTower: what the engine asks of the way in which a model takes pictures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.pictures.preprocessing import PixelArray

if TYPE_CHECKING:
    from PIL.Image import Image


class VisionTower(Protocol):
    """How a model takes pictures: all of one size, or each in its own shape."""

    @property
    def tokens(self) -> int:
        """Most tokens that a picture runs as."""

    @property
    def pixel_bytes(self) -> int:
        """Most bytes of a picture's pixels in memory."""

    @property
    def token_cost(self) -> float:
        """What one of the tokens costs, in tokens of the tower of texts."""

    def fewest_tokens(self) -> int:
        """Return the fewest tokens that a picture runs as."""

    def pixels(self, image: "Image") -> PixelArray:
        """Return the pixels of an RGB picture, as the model's graph takes them."""

    def ids(self, pixels: PixelArray) -> NDArray[np.int32]:
        """Return what stands for a picture's pixels where texts have token ids, as `content_ids` makes it."""

    def arranged(self, pixels: PixelArray) -> PixelArray:
        """Return pixels of a size that the model takes, (height, width, 3), as `pixels` returns them."""

    def probe_sizes(self) -> Sequence[tuple[int, int]]:
        """Return heights and widths of pictures that check a graph."""

    def summary(self) -> dict[str, Any]:
        """Return what of it decides vectors, for the space's fingerprint."""
