"""Vectors in a file: they come back, across processes and damage, and a disk that fails costs nothing but hits."""

import sqlite3
from pathlib import Path

import pytest
from nestvec.engine.cache.vector_file import VectorFile

VECTORS = {n.to_bytes(16, "big"): bytes([n % 256]) * 400 for n in range(700)}
BIG = 2**30


def filled(path: Path) -> Path:
    """A file with vectors in it."""
    file = VectorFile(path, BIG)
    file.put(VECTORS)
    file.close()
    return path


def count(path: Path) -> int:
    """Rows of a file that nobody writes."""
    connection = sqlite3.connect(path)
    (rows,) = connection.execute("select count(*) from vectors").fetchone()
    connection.close()
    return int(rows)


def found(path: Path) -> dict[bytes, bytes]:
    """What another process would find."""
    file = VectorFile(path, BIG)
    try:
        return dict(file.get(list(VECTORS)))
    finally:
        file.close()


def test_vectors_come_back(tmp_path: Path) -> None:
    """More at once than one query takes; strangers do not."""
    path = filled(tmp_path / "folder" / "vectors.db")
    assert found(path) == VECTORS
    assert count(path) == len(VECTORS)
    assert path.stat().st_mode & 0o077 == 0
    file = VectorFile(path, BIG)
    assert file.get([b"nobody"]) == {}
    file.close()


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 20_000])
def test_a_file_cut_short_is_begun_anew(tmp_path: Path, size: int) -> None:
    """No request fails, no wrong vector is served, and it works again."""
    path = filled(tmp_path / "vectors.db")
    path.write_bytes(path.read_bytes()[:size])
    for name in ("vectors.db-wal", "vectors.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    kept = found(path)
    assert kept.items() <= VECTORS.items()
    filled(path)
    again = found(path)
    assert again in ({}, VECTORS) or again.items() <= VECTORS.items()
    assert found(filled(path)) == VECTORS


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """A row whose checksum does not fit is no row."""
    path = filled(tmp_path / "vectors.db")
    key = next(iter(VECTORS))
    with sqlite3.connect(path) as connection:
        connection.execute("update vectors set vector = ? where key = ?", (b"x" * 400, key))
    connection.close()
    assert found(path) == {k: v for k, v in VECTORS.items() if k != key}


def test_it_stays_within_its_size(tmp_path: Path) -> None:
    """The oldest go; the newest stay."""
    path = tmp_path / "vectors.db"
    file = VectorFile(path, 2 * 2**20)
    for number in range(40):
        file.put({(number * 1000 + n).to_bytes(16, "big"): bytes(1000) for n in range(200)})
    file.close()
    assert 0 < count(path) < 40 * 200
    assert path.stat().st_size < 4 * 2**20


def test_something_else_is_not_touched(tmp_path: Path) -> None:
    """A folder in its place, or a disk that cannot be written: no vectors, no error."""
    (tmp_path / "vectors.db").mkdir()
    file = VectorFile(tmp_path / "vectors.db", BIG)
    file.put(VECTORS)
    assert file.get(list(VECTORS)) == {}
    file.close()
    assert (tmp_path / "vectors.db").is_dir()
