"""Vectors in a file come back across processes and damage, and a disk that fails costs nothing but hits."""

import sqlite3
from pathlib import Path

import pytest
from nestvec.engine.cache.vector_file import VectorFile

VECTORS = {n.to_bytes(16, "big"): bytes([n % 256]) * 400 for n in range(700)}
BIG = 2**30


def filled(path: Path) -> Path:
    """Write a file with vectors in it."""
    file = VectorFile(path, BIG)
    file.put(VECTORS)
    file.close()
    return path


def count(path: Path) -> int:
    """Count the rows of a file that nobody writes."""
    connection = sqlite3.connect(path)
    (rows,) = connection.execute("select count(*) from vectors").fetchone()
    connection.close()
    return int(rows)


def read_back(path: Path) -> dict[bytes, bytes]:
    """Read what another process would find."""
    file = VectorFile(path, BIG)
    try:
        return dict(file.get(list(VECTORS)))
    finally:
        file.close()


def test_vectors_come_back(tmp_path: Path) -> None:
    """More keys than one query takes are found; unknown ones are not."""
    path = filled(tmp_path / "folder" / "vectors.db")
    assert read_back(path) == VECTORS
    assert count(path) == len(VECTORS)
    assert path.stat().st_mode & 0o077 == 0
    file = VectorFile(path, BIG)
    assert file.get([b"nobody"]) == {}
    file.close()


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 20_000])
def test_a_file_cut_short_is_begun_anew(tmp_path: Path, size: int) -> None:
    """No request fails, no wrong vector is served, and the file works again."""
    path = filled(tmp_path / "vectors.db")
    path.write_bytes(path.read_bytes()[:size])
    for name in ("vectors.db-wal", "vectors.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    survivors = read_back(path)
    assert survivors.items() <= VECTORS.items()
    filled(path)
    again = read_back(path)
    assert again in ({}, VECTORS) or again.items() <= VECTORS.items()
    assert read_back(filled(path)) == VECTORS


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """A row whose checksum does not fit counts as none."""
    path = filled(tmp_path / "vectors.db")
    key = next(iter(VECTORS))
    with sqlite3.connect(path) as connection:
        connection.execute("update vectors set vector = ? where key = ?", (b"x" * 400, key))
    connection.close()
    assert read_back(path) == {k: v for k, v in VECTORS.items() if k != key}


def test_it_stays_within_its_size(tmp_path: Path) -> None:
    """The oldest rows go, the newest stay."""
    path = tmp_path / "vectors.db"
    file = VectorFile(path, 2 * 2**20)
    for number in range(40):
        file.put({(number * 1000 + n).to_bytes(16, "big"): bytes(1000) for n in range(200)})
    file.close()
    assert 0 < count(path) < 40 * 200
    assert path.stat().st_size < 4 * 2**20


def test_something_else_is_not_touched(tmp_path: Path) -> None:
    """A folder at its path, or a disk that cannot be written, means no vectors and no error."""
    (tmp_path / "vectors.db").mkdir()
    file = VectorFile(tmp_path / "vectors.db", BIG)
    file.put(VECTORS)
    assert file.get(list(VECTORS)) == {}
    file.close()
    assert (tmp_path / "vectors.db").is_dir()
