"""Small files of word vectors in each format, written from their specifications, and what they hold."""

import sqlite3
import struct
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vectors = Mapping[str, NDArray[np.float32]]
WORDS = ("the", "cat", "sat", ".", "zürich", "東", "京", "a", "1")


def vectors(dimensions: int = 6, words: tuple[str, ...] = WORDS) -> dict[str, NDArray[np.float32]]:
    """Return vectors of words by a seed, rounded to what every format holds."""
    rows = np.random.default_rng(4).standard_normal((len(words), dimensions)).round(5)
    return dict(zip(words, rows.astype(np.float32), strict=True))


def text_table(table: Vectors, *, has_header: bool) -> bytes:
    """Write word2vec's text, or GloVe's, which has no header."""
    lines = [f"{word} {' '.join(map(str, row.tolist()))} \n" for word, row in table.items()]
    width = len(next(iter(table.values())))
    return ((f"{len(table)} {width}\n" if has_header else "") + "".join(lines)).encode()


def binary_table(table: Vectors, end: bytes = b"\n") -> bytes:
    """Write word2vec's binary file, with a line's end behind each vector as its own program has it."""
    width = len(next(iter(table.values())))
    rows = [word.encode() + b" " + row.astype("<f4").tobytes() for word, row in table.items()]
    return f"{len(table)} {width}\n".encode() + end.join(rows) + end


def fasttext_model(
    table: Vectors,
    buckets: NDArray[np.float32],
    *,
    min_chars: int = 2,
    max_chars: int = 4,
    version: int = 12,
    model: int = 2,
    is_quantised: bool = False,
    labels: tuple[str, ...] = (),
) -> bytes:
    """Write fastText's own file; word n counts 10 * (n + 1) times."""
    width = len(next(iter(table.values())))
    arguments = (width, 5, 5, 1, 5, 1, 2, model, len(buckets), min_chars, max_chars, 100, 1e-4)
    entries = [*((word, 0) for word in table), *((label, 1) for label in labels)]
    words = b"".join(
        word.encode() + b"\0" + struct.pack("<qb", 10 * (n + 1), kind)
        for n, (word, kind) in enumerate(entries)
    )
    rows = np.concatenate([np.stack(list(table.values())), buckets]).astype("<f4")
    return b"".join(
        (
            struct.pack("<2i12id", 793712314, version, *arguments),
            struct.pack("<3iqq", len(entries), len(table), len(labels), 1000, -1),
            words,
            struct.pack("<?2q", is_quantised, *rows.shape),
            rows.tobytes(),
        )
    )


def write_magnitude(path: Path, table: Vectors, *, precision: int = 7, more: object = None) -> None:
    """Write Magnitude's database."""
    width = len(next(iter(table.values())))
    names = ", ".join(f"dim_{n} INTEGER" for n in range(width))
    settings = {"size": len(table), "dim": width, "precision": precision}
    if more is not None:
        settings |= {"elmo": 1}
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE magnitude (key TEXT COLLATE NOCASE, {names})")
        database.execute("CREATE TABLE magnitude_format (key TEXT COLLATE NOCASE, value INTEGER)")
        database.executemany("INSERT INTO magnitude_format VALUES (?, ?)", settings.items())
        marks = ", ".join("?" * (width + 1))
        database.executemany(
            f"INSERT INTO magnitude VALUES ({marks})",  # noqa: S608 - marks alone
            [
                (word, *(round(float(v) * 10**precision) for v in row))
                for word, row in table.items()
            ],
        )
