"""Files of strangers become the pixels that Pillow makes of them, or are refused for a reason."""

import io
import warnings

import pytest
from nestvec.engine.pictures import decoding
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture, read_header
from nestvec.errors import InputError, RequestTooLargeError, UnsupportedError
from PIL import Image, ImageOps

from tests.engine.pictures.chunks import png_of
from tests.engine.pictures.hostile import HOSTILE, SIZE, encoded, pixels, whole_files

BOUNDS = PictureBounds()
WHOLE = whole_files()


def loaded(content: bytes) -> Image.Image:
    """Return what transformers' `load_image` gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")


@pytest.mark.parametrize("name", WHOLE)
def test_pixels_are_those_of_load_image(name: str) -> None:
    """Palettes, alpha, 16 bits, CMYK, turned and animated files give the pixels that transformers sees, to the byte."""
    picture, expected = decode_picture(WHOLE[name], BOUNDS), loaded(WHOLE[name])
    assert (picture.mode, picture.size) == ("RGB", expected.size)
    assert picture.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_off_gives_all_of_its_pixels_or_none(name: str) -> None:
    """Wherever a file ends early, it is refused, unless all of its pixels were there."""
    content = WHOLE[name]
    expected = loaded(content).tobytes()
    refused = 0
    for stop in range(0, len(content), max(1, len(content) // 40)):
        try:
            assert decode_picture(content[:stop], BOUNDS).tobytes() == expected
        except InputError:
            refused += 1
    # An animation's first frame may be whole.
    assert refused > (5 if "animated" in name else 25)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_for_their_reason(name: str) -> None:
    """Bombs, other kinds of files and broken ones are the caller's error, with words that help."""
    make, reason = HOSTILE[name]
    content = make()
    with pytest.raises(InputError) as refused:
        decode_picture(content, BOUNDS)
    assert reason in refused.value.message
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("png", ("PNG", 24)),
        ("png palette", ("PNG", 8)),
        ("png 16 bit", ("PNG", 16)),
        ("jpeg turned", ("JPEG", 24)),
        ("webp lossless", ("WebP", 24)),
        ("gif animated", ("GIF", 8)),
        ("bmp", ("BMP", 24)),
    ],
)
def test_headers(name: str, expected: tuple[str, int]) -> None:
    """What a file declares is read without its pixels: the last bytes may be missing."""
    header = read_header(WHOLE[name], BOUNDS)
    assert (header.format, header.bit_depth) == expected
    assert (header.width, header.height, header.pixels) == (*SIZE, SIZE[0] * SIZE[1])


def test_the_header_is_read_before_any_pixel() -> None:
    """A picture whose pixels are broken has a header; one of too many pixels is refused by it."""
    broken = png_of(100, 100, b"no pixels")
    assert read_header(broken, BOUNDS).pixels == 10_000
    with pytest.raises(RequestTooLargeError, match="100 x 100 pixels, max 9999"):
        read_header(broken, PictureBounds(max_pixels=9999))


def test_bounds_are_of_bytes_pixels_and_pictures() -> None:
    """What is just within a bound is read, and what is beyond is refused with both numbers."""
    content = WHOLE["png"]
    size = len(content)
    assert decode_picture(content, PictureBounds(max_bytes=size, max_pixels=2400)).size == SIZE
    with pytest.raises(RequestTooLargeError, match=f"{size} bytes, max {size - 1}"):
        decode_picture(content, PictureBounds(max_bytes=size - 1))
    bounds = PictureBounds(max_pictures=2, max_call_pixels=100)
    bounds.check_count(2)
    bounds.check_call_pixels(100)
    with pytest.raises(RequestTooLargeError, match="at most 2 pictures, got 3"):
        bounds.check_count(3)
    with pytest.raises(RequestTooLargeError, match="101 pixels, max 100"):
        bounds.check_call_pixels(101)


def test_a_picture_may_be_200_times_as_long_as_wide() -> None:
    """A line of pixels would be thousands of pictures long, once its shorter side is what a model takes."""
    assert decode_picture(encoded(pixels(400, 2), "PNG"), BOUNDS).size == (400, 2)
    with pytest.raises(InputError, match="401 x 2 pixels"):
        decode_picture(encoded(pixels(401, 2), "PNG"), BOUNDS)


def test_files_of_two_kinds_at_once_are_what_they_begin_as() -> None:
    """What follows a picture is left alone, and what it follows decides: a PNG before a ZIP is a PNG."""
    zipped = b"PK\x03\x04" + bytes(64)
    for name in ("png", "jpeg", "webp", "gif", "bmp"):
        assert (
            decode_picture(WHOLE[name] + zipped, BOUNDS).tobytes() == loaded(WHOLE[name]).tobytes()
        )
        with pytest.raises(InputError, match="no picture"):
            decode_picture(zipped + WHOLE[name], BOUNDS)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks Pillow is told what to install."""
    monkeypatch.setattr(decoding, "has_pillow", lambda: False)
    with pytest.raises(UnsupportedError, match="images"):
        decode_picture(WHOLE["png"], BOUNDS)
