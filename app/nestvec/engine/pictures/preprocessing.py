"""RGB pictures to the pixels that a model takes: resized and cropped as its preprocessor_config.json says. Pure.

Bytes are those of transformers' image processors on Pillow, which resize and crop before they scale; scaling is done by
the graph.

Source: `resize`, `center_crop` and `get_resize_output_image_size` of transformers' image_transforms.py.
"""

from dataclasses import dataclass
from hashlib import shake_128
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

PixelArray = NDArray[np.uint8]
SIGN_BIT: Final = np.int32(-(2**31))


@dataclass(frozen=True, slots=True)
class PictureTower:
    """How a model takes pictures.

    Attributes:
        size: Width and height of the pixels that it takes, S.
        tokens: Number of tokens that a picture runs as: its patches, and a token of their own where there is one.
        is_square: Whether a picture is resized to a square as it is; otherwise its shorter side is, and the middle of
            the longer one is cropped.
        resized_side: The side that is resized to, in pixels.
        resample: Pillow's number of the filter.
        token_cost: What one of the tokens costs, in tokens of the tower of texts.
    """

    size: int
    tokens: int
    is_square: bool
    resized_side: int
    resample: int
    token_cost: float = 1.0

    @property
    def pixel_bytes(self) -> int:
        """Size of a picture's pixels in memory."""
        return 3 * self.size * self.size

    def pixels(self, image: "Image") -> PixelArray:
        """Return the pixels of an RGB picture, (S, S, 3); its decoder bounds how long and narrow it may be."""
        from PIL import Image

        resized = image.resize(self._resized_size(image), Image.Resampling(self.resample))
        return _cropped(np.asarray(resized), self.size)

    def _resized_size(self, image: "Image") -> tuple[int, int]:
        """Return the width and height that a picture is resized to."""
        side = self.resized_side
        if self.is_square:
            return side, side
        shorter, longer = sorted(image.size)
        scaled = int(side * longer / shorter)
        return (side, scaled) if image.width <= image.height else (scaled, side)


def _cropped(pixels: PixelArray, size: int) -> PixelArray:
    """Cut the middle square out; where pixels are fewer, they are padded with zeros all around."""
    height, width = pixels.shape[:2]
    if height < size or width < size:
        pixels = _padded(pixels, max(size, height), max(size, width))
        height, width = pixels.shape[:2]
    top, left = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(pixels[top : top + size, left : left + size])


def _padded(pixels: PixelArray, height: int, width: int) -> PixelArray:
    padded: NDArray[Any] = np.zeros((height, width, pixels.shape[2]), np.uint8)
    # Rounded up, as in the library.
    top, left = -((pixels.shape[0] - height) // 2), -((pixels.shape[1] - width) // 2)
    padded[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return padded


def content_ids(pixels: PixelArray, tokens: int, shape: bytes = b"") -> NDArray[np.int32]:
    """Return what stands for a picture where texts have token ids: numbers below zero, a hash of its pixels.

    By them the vector cache, coalescing and the journal of what runs know a picture, as they know a text by its ids,
    and none is ever a text's.

    Args:
        pixels: Its pixels.
        tokens: How many numbers: one for each token that it runs as.
        shape: Tells apart pictures of the same bytes in other shapes, where there are several.
    """
    digest = shake_128(shape + pixels.tobytes()).digest(4 * tokens)
    return np.frombuffer(digest, np.int32) | SIGN_BIT
