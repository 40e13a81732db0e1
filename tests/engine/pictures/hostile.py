"""Files of pictures that strangers may send: whole ones of each kind, and hostile ones, each a few kilobytes."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from PIL import Image

from tests.engine.pictures.chunks import chunk, png_of, webp_of

SIZE: Final = (60, 40)


def pixels(width: int = SIZE[0], height: int = SIZE[1]) -> Image.Image:
    """Return a picture of soft colours, so that files are small and no two pixels alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [rows * 5 % 256, columns * 4 % 256, (rows + columns) * 2 % 256]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return a picture's file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def whole_files() -> dict[str, bytes]:
    """Return a file of each kind that is read, by name."""
    image, turned = pixels(), Image.Exif()
    turned[0x0112] = 6
    palette = image.quantize(32)
    deep = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE[1], SIZE[0]) * 27
    frames: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(90)]}
    return {
        "png": encoded(image, "PNG"),
        "png palette": encoded(palette, "PNG"),
        "png palette alpha": encoded(palette, "PNG", transparency=bytes(range(32))),
        "png palette clear": encoded(palette, "PNG", transparency=3),
        "png alpha": encoded(image.convert("RGBA"), "PNG"),
        "png bits": encoded(image.convert("1"), "PNG"),
        "png 16 bit": encoded(Image.fromarray(deep), "PNG"),
        "png animated": encoded(image, "PNG", **frames),
        "jpeg": encoded(image, "JPEG"),
        "jpeg progressive": encoded(image, "JPEG", progressive=True),
        "jpeg grey": encoded(image.convert("L"), "JPEG"),
        "jpeg cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "jpeg turned": encoded(image, "JPEG", exif=turned),
        "webp": encoded(image, "WEBP"),
        "webp lossless": encoded(image, "WEBP", lossless=True),
        "webp animated": encoded(image, "WEBP", **frames),
        "gif": encoded(palette, "GIF"),
        "gif animated": encoded(image, "GIF", **frames),
        "bmp": encoded(image, "BMP"),
    }


def _jpeg_of_scans() -> bytes:
    """A progressive JPEG whose last scan stands in it a thousand times."""
    whole = encoded(pixels(), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * 1000 + whole[-2:]


def _bmp_of_run_lengths() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 60, 40, 1, 8, 1, 0, 0, 0, 256, 0)
    offset = 14 + len(header) + 1024
    data = b"\x01\x07" * 2400 + b"\x00\x01"
    return (
        b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + bytes(1024) + data
    )


def _with_jpeg_size(width: int, height: int) -> bytes:
    """A JPEG that declares another size than it has."""
    whole = bytearray(encoded(pixels(), "JPEG"))
    start = whole.index(b"\xff\xc0") + 5
    whole[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(whole)


def _bomb_of_text(kind: bytes) -> bytes:
    """A PNG with 40 compressed texts, or one colour profile, of 8 MiB."""
    body = zlib.compress(bytes(8 * 2**20), 9)
    if kind == b"iCCP":
        return png_of(8, 8, bytes(200), chunk(kind, b"a\0\0" + body))
    texts = b"".join(chunk(kind, b"key%d\0\0" % n + body) for n in range(40))
    return png_of(8, 8, bytes(200), texts)


def _gif_of_size(width: int, height: int) -> bytes:
    whole = bytearray(encoded(pixels().quantize(32), "GIF"))
    whole[6:10] = struct.pack("<HH", width, height)
    return bytes(whole)


# By name: what makes the file, and words of the reason why it is refused.
HOSTILE: Final[Mapping[str, tuple[Callable[[], bytes], str]]] = {
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"hello", "no picture"),
    "zeros": (lambda: bytes(4096), "no picture"),
    "html": (lambda: b"<html><script>alert(1)</script></html>", "no picture"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "pdf": (lambda: b"%PDF-1.7\n" + bytes(100), "PDF"),
    "tiff": (lambda: encoded(pixels(), "TIFF"), "TIFF"),
    "ico": (lambda: encoded(pixels(), "ICO"), "ICO"),
    "heic": (lambda: b"\0\0\0\x18ftypheic" + bytes(64), "HEIC"),
    "avif": (lambda: b"\0\0\0\x18ftypavif" + bytes(64), "AVIF"),
    "jpeg 2000": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64), "JPEG 2000"),
    "video": (lambda: b"\0\0\0\x18ftypisom" + bytes(64), "no picture"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "no picture"),
    "only the signature": (lambda: b"\x89PNG\r\n\x1a\n", "damaged"),
    "only a marker": (lambda: b"\xff\xd8\xff\xe0", "damaged"),
    "png of 4 billion pixels": (lambda: png_of(65535, 65535, b""), "far more pixels"),
    "png of 2**62 pixels": (lambda: png_of(2**31 - 1, 2**31 - 1, b""), ""),
    "png of no pixels": (lambda: png_of(0, 0, b""), ""),
    "png line": (lambda: png_of(15_000_000, 1, b""), "longer side"),
    "png of 81 million pixels": (lambda: png_of(9000, 9000, bytes(2**20)), "9000 x 9000"),
    "png of too few pixels": (lambda: png_of(3000, 3000, b"\0"), "damaged"),
    "png of zipped texts": (lambda: _bomb_of_text(b"zTXt"), "damaged"),
    "png of a zipped profile": (lambda: _bomb_of_text(b"iCCP"), "damaged"),
    "png of a wrong checksum": (
        lambda: png_of(8, 8, bytes(200)).replace(b"IHDR\0\0\0\x08", b"IHDR\0\0\0\x09"),
        "damaged",
    ),
    "jpeg of 4 billion pixels": (lambda: _with_jpeg_size(65500, 65500), "far more pixels"),
    "jpeg of a thousand scans": (_jpeg_of_scans, "scans"),
    "gif of 4 billion pixels": (lambda: _gif_of_size(65535, 65535), "far more pixels"),
    "bmp of run lengths": (_bmp_of_run_lengths, "run lengths"),
    "bmp of 4 billion pixels": (
        lambda: (
            b"BM"
            + struct.pack("<IHHI", 54, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, 65535, -65535, 1, 24, 0, 0, 0, 0, 0, 0)
        ),
        "far more pixels",
    ),
    "png of one column": (lambda: png_of(1, 16_000_000, b""), "200 times"),
    "png of one row": (lambda: png_of(16_000_000, 1, b""), "200 times"),
    "webp of 268 million pixels": (lambda: webp_of(16383, 16383), ""),
    "riff of another kind": (lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(24), "no picture"),
    "png cut off": (lambda: whole_files()["png"][:-40], "damaged"),
    "jpeg cut off": (lambda: whole_files()["jpeg"][:-60], "damaged"),
    "webp cut off": (lambda: whole_files()["webp"][:-60], "damaged"),
    "gif cut off": (lambda: whole_files()["gif"][:-200], "damaged"),
    "bmp cut off": (lambda: whole_files()["bmp"][:-60], "damaged"),
}
