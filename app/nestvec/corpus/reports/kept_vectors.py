"""Vectors of an interrupted report, kept by chunks of texts until the report is whole: the same command resumes.

A chunk's file is named by a hash of model, space, role and texts; the texts themselves are not kept.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.corpus.reports.frame import EmbedTexts
from nestvec.engine.types import FloatArray
from nestvec.system.durable_files import atomic_write

CHUNK_TEXTS: Final = 1024
MATRIX: Final = 2


class KeptVectors:
    """A folder of the vectors of chunks.

    Args:
        folder: Where they are kept; made when the first chunk is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def around(
        self, embed: EmbedTexts, identity: str, on_found: Callable[[int], object]
    ) -> EmbedTexts:
        """Return an embedder that embeds what is not kept, and keeps it.

        Args:
            embed: Embeds what is not there.
            identity: The model and its space.
            on_found: Told how many texts had their vectors here.
        """

        def kept(texts: Sequence[str], role: str | None = None) -> FloatArray:
            whole: FloatArray | None = None
            for start in range(0, len(texts), CHUNK_TEXTS):
                chunk = texts[start : start + CHUNK_TEXTS]
                path = self._folder / f"{_hash(identity, role, chunk)}.npy"
                vectors = _read(path)
                if vectors is None or len(vectors) != len(chunk):
                    vectors = embed(chunk, role)
                    self._write(path, vectors)
                else:
                    on_found(len(chunk))
                if whole is None:
                    # Filled as chunks come: parts that are joined at the end would take twice the memory.
                    whole = np.empty((len(texts), vectors.shape[1]), np.float32)
                whole[start : start + len(chunk)] = vectors
            return embed(texts, role) if whole is None else whole

        return kept

    @contextmanager
    def until_whole(self, tell: Callable[[str], object]) -> Iterator[None]:
        """Forget what is kept when the work within is done; where it fails or is interrupted, say how much is kept.

        Args:
            tell: Is given the line that says so.
        """
        try:
            yield
        except BaseException:
            tell(self._told())
            raise
        shutil.rmtree(self._folder, ignore_errors=True)

    def _told(self) -> str:
        """Return what is kept, in words."""
        chunks = [_read(path) for path in self._folder.glob("*.npy")]
        count = sum(len(chunk) for chunk in chunks if chunk is not None)
        if not count:
            return f"interrupted; no vectors are kept yet, as they are by {CHUNK_TEXTS:,} texts"
        return f"interrupted; {count:,} vectors are kept in {self._folder}: the same command goes on from there"

    def _write(self, path: Path, vectors: FloatArray) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.save(file, vectors)


def _hash(identity: str, role: str | None, texts: Sequence[str]) -> str:
    digest = hashlib.blake2b(f"{identity}\0{role}".encode(), digest_size=16)
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _read(path: Path) -> FloatArray | None:
    """Return kept vectors, mapped; None where there are none, or the file is not whole."""
    try:
        vectors: FloatArray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.ndim == MATRIX and vectors.dtype == np.float32 else None
