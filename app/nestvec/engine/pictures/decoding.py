"""An encoded picture to RGB pixels, as transformers' `load_image` gives them to an image processor."""

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from nestvec.errors import InputError
from nestvec.system.extras import how_to_install

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class PictureBounds:
    """Bounds on one picture.

    Attributes:
        max_pixels: Most pixels that a decoded picture may have.
    """

    max_pixels: int = 64_000_000


def decode_picture(data: bytes, bounds: PictureBounds) -> "Image":
    """Decode a picture: turned as its EXIF says, and as RGB.

    Args:
        data: The bytes of the file.
        bounds: What it may come to.

    Raises:
        InputError: It is no picture, or a larger one than the bounds allow.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise InputError(
            f"pictures need Pillow, which is not installed here: {how_to_install('images')}",
            param="input",
        ) from error
    try:
        image = Image.open(BytesIO(data))
        if image.width * image.height > bounds.max_pixels:
            raise InputError(
                f"a picture of {image.width} x {image.height} pixels is too large, max {bounds.max_pixels} pixels",
                param="input",
            )
        return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError("this is no picture that can be read", param="input") from error
