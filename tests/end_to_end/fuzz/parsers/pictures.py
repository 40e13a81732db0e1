"""Pictures as a target: whole files of each kind, mutated, with their checksums mended, joined, and cut."""

import random
import struct
import zlib
from pathlib import Path

from nestvec.engine.pictures.decoding import PictureBounds, decode_picture, read_header
from nestvec.engine.pictures.naflex import NaFlexTower

from tests.end_to_end.fuzz.mutate import mutated_bytes
from tests.engine.pictures.hostile import HOSTILE, whole_files

# Of what a mutated header may declare, so that a second has many files.
BOUNDS = PictureBounds(max_pixels=4_000_000)
# What a picture of any shape becomes, where a model takes it in its own.
NAFLEX = NaFlexTower(patch_size=16, max_patches=256, resample=2)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def sample_pictures(folder: Path) -> list[bytes]:
    """Return whole files, and hostile ones."""
    del folder
    hostile = [make() for make, _ in HOSTILE.values()]
    return [*whole_files().values(), *hostile]


def write_picture(folder: Path, samples: list[bytes], chooser: random.Random) -> None:
    """Write a mutated picture: a PNG's checksums are mended, else few mutations would be looked at."""
    content = chooser.choice(samples)
    kind = chooser.random()
    if kind < 0.1:
        content += chooser.choice(samples)
    elif kind < 0.2:
        other = chooser.choice(samples)
        content = content[: chooser.randrange(len(content) + 1)] + other[len(other) // 2 :]
    elif kind < 0.6:
        # Where sizes, palettes and tables are.
        edge = min(len(content), chooser.choice((32, 64, 256, 1024)))
        content = mutated_bytes(content[:edge], chooser) + content[edge:]
    else:
        content = mutated_bytes(content, chooser)
    if content.startswith(SIGNATURE) and chooser.random() < 0.8:
        content = _mended(content)
    (folder / "picture").write_bytes(content)


def read_picture(folder: Path) -> object:
    """Read it as the server does: its header, its pixels, which are RGB and no more than it may have, its patches."""
    content = (folder / "picture").read_bytes()
    header = read_header(content, BOUNDS)
    image = decode_picture(content, BOUNDS)
    assert image.mode == "RGB"
    assert image.width * image.height == header.pixels <= BOUNDS.max_pixels
    patches = NAFLEX.pixels(image)
    assert 0 < patches.shape[0] * patches.shape[1] <= NAFLEX.max_patches
    assert patches.nbytes <= NAFLEX.pixel_bytes
    return image


def _mended(content: bytes) -> bytes:
    """Return a PNG with the checksums that its chunks should have."""
    data = bytearray(content)
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(data)
