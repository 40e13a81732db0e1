"""RGB pictures to the pixels that jina-clip takes: by the shorter side, by the longer one with a border, or squashed.

Source: `transform.py` of jinaai/jina-clip-implementation, which resizes and crops by torchvision's transforms on
Pillow's pictures; unlike transformers' processors they round a half to the even number.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from nestvec.engine.pictures.preprocessing import PictureTower, PixelArray

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class FittedTower(PictureTower):
    """How a model takes pictures that keep their shape.

    Attributes:
        fits_longer: Whether the longer side is resized to the size, and the shorter one bordered; otherwise the shorter
            side is, and the middle of the longer one is cropped. Squares (`is_square`) are neither.
        fill: Value of each colour of the border.
    """

    fits_longer: bool = False
    fill: int = 0

    @override
    def pixels(self, image: "Image") -> PixelArray:
        """Return the pixels of an RGB picture, (S, S, 3); its decoder bounds how long and narrow it may be."""
        if self.is_square:
            # Without `super()`, which a class with slots does not find.
            return PictureTower.pixels(self, image)
        from PIL import Image

        resized = image.resize(self._fitted(image), Image.Resampling(self.resample))
        pixels = np.asarray(resized)
        return np.ascontiguousarray(self._framed(pixels) if self.fits_longer else self._cut(pixels))

    def _fitted(self, image: "Image") -> tuple[int, int]:
        """Return the width and height that a picture is resized to."""
        side, (shorter, longer) = self.size, sorted(image.size)
        if self.fits_longer:
            ratio = longer / side
            # A line of pixels would vanish.
            return max(1, round(image.width / ratio)), max(1, round(image.height / ratio))
        scaled = int(side * longer / shorter)
        return (side, scaled) if image.width <= image.height else (scaled, side)

    def _cut(self, pixels: PixelArray) -> PixelArray:
        """Cut the middle square out."""
        height, width = pixels.shape[:2]
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return pixels[top : top + self.size, left : left + self.size]

    def _framed(self, pixels: PixelArray) -> PixelArray:
        """Put a border around, the wider part of it below and on the right."""
        height, width = pixels.shape[:2]
        framed = np.full((self.size, self.size, 3), self.fill, np.uint8)
        top, left = (self.size - height) // 2, (self.size - width) // 2
        framed[top : top + height, left : left + width] = pixels
        return framed
