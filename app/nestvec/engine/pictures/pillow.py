"""Pillow with five of its formats, and with its settings for files of strangers; imported where pictures are read.

The settings are of the whole process, as Pillow has no others; nothing else here reads pictures.
"""

import warnings
from collections.abc import Mapping
from typing import Final

# Those named are registered by their import; `Image.open` then imports none of the other forty.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

__all__ = ["PLUGINS", "TOO_MANY_PIXELS", "Image", "ImageOps"]

# By our names for them: Pillow's.
PLUGINS: Final[Mapping[str, str]] = {
    "PNG": PngImagePlugin.PngImageFile.format,
    "JPEG": JpegImagePlugin.JpegImageFile.format,
    "WebP": WebPImagePlugin.WebPImageFile.format,
    "GIF": GifImagePlugin.GifImageFile.format,
    "BMP": BmpImagePlugin.BmpImageFile.format,
}
# What Pillow says of them before they are counted here, as a warning or, beyond twice that, as an error.
TOO_MANY_PIXELS: Final = (Image.DecompressionBombWarning, Image.DecompressionBombError)
# All compressed texts of a PNG together, which by default may be 64 times as much.
PngImagePlugin.MAX_TEXT_MEMORY = PngImagePlugin.MAX_TEXT_CHUNK
ImageFile.LOAD_TRUNCATED_IMAGES = False
# What Pillow merely warns of is told to nobody here: whose EXIF is broken has none. Of size there are bounds of ours.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
