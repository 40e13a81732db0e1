"""Pictures that are decoded already, as a Python program holds them: Pillow's images, written as files again.

A file without compression holds the same pixels, and takes no time to speak of.
"""

from io import BytesIO
from typing import TYPE_CHECKING

from nestvec.engine.pictures.decoding import rgb_of
from nestvec.engine.pictures.picture import Picture
from nestvec.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


def picture_of_image(image: "Image") -> Picture:
    """Return an image of Pillow's as a picture of the same pixels: turned as its EXIF says, and as RGB.

    Args:
        image: Opened or made by whoever calls; pixels that it has not read yet are read here.

    Raises:
        InputError: Its file is damaged, or it has no pixels.
    """
    from nestvec.engine.pictures.pillow import PLUGINS

    file = BytesIO()
    try:
        rgb_of(image).save(file, PLUGINS["BMP"])
    # Pillow promises no kinds of errors.
    except Exception as error:
        raise InputError(
            "this image cannot be read: its file is damaged, cut off or closed, or it has no pixels",
            param="input",
            code="invalid_image",
        ) from error
    return Picture(file.getvalue())
