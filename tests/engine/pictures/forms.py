"""Pictures made by a test itself, in each form in which they come; needs Pillow."""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image

SEED: Final = 5
ORIENTATION: Final = 0x0112  # of EXIF


def colours(width: int, height: int, seed: int = SEED) -> "Image.Image":
    """Return an RGB picture of blends, edges and noise."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows, columns = np.mgrid[0:height, 0:width]
    red = 255 * columns / max(width - 1, 1)
    green = 255 * ((rows // 7 + columns // 5) % 2)
    blue = 255 * rows / max(height - 1, 1)
    pixels = np.stack([red, green, blue], -1) * 0.8 + 51 * random.random((height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: "Image.Image", kind: str, **options: Any) -> bytes:
    """Return a picture as a file's bytes."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _alpha() -> bytes:
    image = colours(61, 47).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return encoded(image, "PNG")


def _palette() -> bytes:
    image = colours(50, 70).quantize(32)
    return encoded(image, "PNG", transparency=3)


def _rotated(orientation: int) -> bytes:
    image = colours(64, 40)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image, "JPEG", exif=exif.tobytes(), quality=90)


def _sixteen_bits() -> bytes:
    values = np.outer(np.arange(55), np.arange(45)) * 26
    return encoded(Image.fromarray(values.astype(np.uint16)), "PNG")


FORMS: Final[Mapping[str, Callable[[], bytes]]] = {
    "png": lambda: encoded(colours(70, 50), "PNG"),
    "wide": lambda: encoded(colours(131, 33), "PNG"),
    "small": lambda: encoded(colours(9, 11), "PNG"),
    "jpeg": lambda: encoded(colours(90, 120), "JPEG", quality=85),
    "progressive": lambda: encoded(colours(80, 60), "JPEG", progressive=True),
    "webp": lambda: encoded(colours(64, 64), "WEBP", lossless=True),
    "palette": _palette,
    "alpha": _alpha,
    "grey": lambda: encoded(colours(48, 66).convert("L"), "PNG"),
    "bits": lambda: encoded(colours(48, 66).convert("1"), "PNG"),
    "exif-3": lambda: _rotated(3),
    "exif-6": lambda: _rotated(6),
    "exif-7": lambda: _rotated(7),
    "16-bit": _sixteen_bits,
    "cmyk": lambda: encoded(colours(72, 52).convert("CMYK"), "JPEG"),
}
