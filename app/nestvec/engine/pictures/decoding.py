"""Encoded pictures of strangers to RGB pixels, as transformers' `load_image` gives them to an image processor.

What a file declares is looked at before anything is decoded: its format by its first bytes, its width and height, the
scans of a JPEG. Decoding then takes a time and a memory that go with the pixels, some 16 bytes for each, whatever the
file holds. It takes Pillow, the extra `images`, whose decoders release Python's lock: call it in a thread.
"""

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final, TypeVar

from nestvec.engine.pictures.signatures import format_of
from nestvec.errors import (
    InputError,
    MemoryShortError,
    RequestTooLargeError,
    UnsupportedError,
)
from nestvec.system.extras import how_to_install

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")

# The formats that are read; of an animation, its first frame.
FORMATS: Final = ("PNG", "JPEG", "WebP", "GIF", "BMP")
# A longer side of so many times the shorter one: resized by its shorter side, a line of pixels would be a thousand
# pictures. As Qwen2-VL's processor bounds it.
MAX_ASPECT_RATIO: Final = 200
# A progressive JPEG has some ten, and each goes through all pixels, in a handful of bytes if need be.
MAX_JPEG_SCANS: Final = 100
START_OF_SCAN: Final = b"\xff\xda"
# The compressions of BMP that Pillow reads in Python, byte by byte.
RUN_LENGTHS: Final = (1, 2)
# Bits of a pixel, by Pillow's name for how it is stored.
MODE_BITS: Final = {
    "1": 1,
    "L": 8,
    "P": 8,
    "LA": 16,
    "PA": 16,
    "RGB": 24,
    "RGBA": 32,
    "RGBX": 32,
    "CMYK": 32,
    "YCbCr": 24,
    "I": 32,
    "F": 32,
    "I;16": 16,
    "I;16B": 16,
}


@dataclass(frozen=True, slots=True)
class PictureBounds:
    """Bounds on the pictures of one call.

    Attributes:
        max_bytes: Most bytes of the file of one picture.
        max_pixels: Most pixels of one picture, its width times its height.
        max_pictures: Most pictures of a call.
        max_call_pixels: Most pixels of all pictures of a call.
    """

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 16_000_000
    max_pictures: int = 256
    max_call_pixels: int = 128_000_000

    def check_count(self, pictures: int) -> None:
        """Refuse more pictures than a call may have.

        Raises:
            RequestTooLargeError: There are more.
        """
        if pictures > self.max_pictures:
            raise RequestTooLargeError(
                f"a request takes at most {self.max_pictures} pictures, got {pictures}; send fewer at a time",
                param="input",
            )

    def check_bytes(self, count: int) -> None:
        """Refuse a file of more bytes than a picture may have.

        Raises:
            RequestTooLargeError: It has more.
        """
        if count > self.max_bytes:
            raise RequestTooLargeError(
                f"a picture has {count} bytes, max {self.max_bytes}; make it smaller, or compress it as JPEG",
                param="input",
                code="image_too_large",
            )

    def check_call_pixels(self, pixels: int) -> None:
        """Refuse more pixels than the pictures of a call may have together.

        Raises:
            RequestTooLargeError: They have more.
        """
        if pixels > self.max_call_pixels:
            raise RequestTooLargeError(
                f"these pictures have at least {pixels} pixels, max {self.max_call_pixels} per request; send fewer at "
                "a time, or make them smaller, as the model does first of all",
                param="input",
            )


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a file declares.

    Attributes:
        format: Its format, one of `FORMATS`.
        width: Its width in pixels, before it is turned as its EXIF says.
        height: Its height in pixels.
        bit_depth: Bits of a pixel.
    """

    format: str
    width: int
    height: int
    bit_depth: int

    @property
    def pixels(self) -> int:
        """Number of its pixels."""
        return self.width * self.height


@functools.cache
def has_pillow() -> bool:
    """Return whether Pillow is installed."""
    return importlib.util.find_spec("PIL") is not None


def require_pillow() -> None:
    """Refuse to read pictures where what reads them is not installed.

    Raises:
        UnsupportedError: Pillow is not installed; the message says how it is.
    """
    if not has_pillow():
        raise UnsupportedError(
            "pictures are not read here: the server lacks Pillow. Operators: "
            + how_to_install("images"),
            param="input",
        )


def read_header(data: bytes, bounds: PictureBounds) -> PictureHeader:
    """Read what a picture's file declares, and refuse what is beyond the bounds; no pixel is decoded.

    Args:
        data: The bytes of the file.
        bounds: What a picture may come to.

    Raises:
        InputError: It is no picture, one that cannot be read, or a larger one than the bounds allow; says why.
        UnsupportedError: It is a picture in a format that is not read here, or Pillow is not installed.
    """
    name = _check_file(data, bounds)
    with _guarded(name, bounds, lambda: _open(data, name)) as image:
        _check_size(image, bounds)
        return PictureHeader(name, image.width, image.height, MODE_BITS.get(image.mode, 8))


def decode_picture(data: bytes, bounds: PictureBounds) -> "Image":
    """Decode a picture: turned as its EXIF says, and as RGB.

    Args:
        data: The bytes of the file.
        bounds: What a picture may come to.

    Raises:
        InputError: It is no picture, a damaged one, or a larger one than the bounds allow; says why.
        UnsupportedError: It is a picture in a format that is not read here, or Pillow is not installed.
        MemoryShortError: There is no memory for its pixels just now.
    """
    name = _check_file(data, bounds)
    with _guarded(name, bounds, lambda: _open(data, name)) as image:
        _check_size(image, bounds)
        return _guarded(name, bounds, lambda: rgb_of(image))


def _check_file(data: bytes, bounds: PictureBounds) -> str:
    """Refuse a file by its length and first bytes; returns its format."""
    require_pillow()
    if not data:
        raise InputError("a picture is empty", param="input", code="invalid_image")
    bounds.check_bytes(len(data))
    name = format_of(data)
    if name is None:
        raise InputError(
            f"this is no picture: its first bytes are those of no {_listed()} file",
            param="input",
            code="invalid_image",
        )
    if name not in FORMATS:
        raise UnsupportedError(
            f"pictures are read as {_listed()}, and this file is {name}; convert it", param="input"
        )
    if name == "JPEG" and (scans := data.count(START_OF_SCAN)) > MAX_JPEG_SCANS:
        raise InputError(
            f"a JPEG has {scans} scans, max {MAX_JPEG_SCANS}; save it anew, as a baseline JPEG",
            param="input",
            code="invalid_image",
        )
    return name


def _open(data: bytes, name: str) -> "Image":
    """Let Pillow read the header of a file whose first bytes are those of a format."""
    from nestvec.engine.pictures.pillow import PLUGINS, Image

    return Image.open(BytesIO(data), formats=[PLUGINS[name]])


def rgb_of(image: "Image") -> "Image":
    """Decode an opened picture, turn it as its EXIF says, and make RGB of it, as transformers' `load_image` does.

    A colour that stands for transparency stays what it is, and is named by the `info` of what is returned.
    """
    from nestvec.engine.pictures.pillow import ImageOps

    turned = ImageOps.exif_transpose(image)
    # Of transparency by degrees Pillow would only say that it is lost, as it is to be; a single colour's is kept beside
    # the pixels.
    if isinstance(turned.info.get("transparency"), bytes):
        del turned.info["transparency"]
    return turned.convert("RGB")


def _check_size(image: "Image", bounds: PictureBounds) -> None:
    """Refuse a picture for the size that it declares, or for a compression that takes too long.

    Raises:
        InputError: It is too large, too narrow, or a BMP of run lengths.
    """
    width, height = image.size
    if width * height > bounds.max_pixels:
        raise RequestTooLargeError(
            f"a picture has {width} x {height} pixels, max {bounds.max_pixels}; make it smaller, as the model does "
            "first of all",
            param="input",
            code="image_too_large",
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InputError(
            f"a picture has {width} x {height} pixels, and its longer side is more than {MAX_ASPECT_RATIO} times the "
            "shorter one",
            param="input",
            code="invalid_image",
        )
    if image.format == "BMP" and image.info.get("compression") in RUN_LENGTHS:
        raise UnsupportedError("a BMP of run lengths is not read; save it as PNG", param="input")


def _guarded(name: str, bounds: PictureBounds, work: Callable[[], Result]) -> Result:
    """Let Pillow work on a stranger's file.

    Raises:
        InputError: The file cannot be read, or declares far too many pixels.
        MemoryShortError: There is no memory for it.
    """
    from nestvec.engine.pictures.pillow import TOO_MANY_PIXELS

    try:
        return work()
    except MemoryError:
        raise MemoryShortError(
            "There is no memory for this picture's pixels just now; retry later, or send a smaller one."
        ) from None
    except TOO_MANY_PIXELS as error:
        raise RequestTooLargeError(
            f"a picture declares far more pixels than the {bounds.max_pixels} that one may have",
            param="input",
            code="image_too_large",
        ) from error
    # Pillow promises no kinds: of 16,000 mutated files they were OSError, ValueError and SyntaxError.
    except Exception as error:
        raise InputError(
            f"this picture, a {name} file, is damaged or cut off and cannot be read",
            param="input",
            code="invalid_image",
        ) from error


def _listed() -> str:
    return f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
