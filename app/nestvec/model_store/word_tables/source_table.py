"""What every format of word vectors is read as: words with their rows, a chunk at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.text.subwords.parts import NGrams
from nestvec.engine.types import FloatArray
from nestvec.errors import FormatError

CHUNK_NUMBERS: Final = 2**20  # of a chunk: 4 MiB of float32
MAX_DIMENSIONS: Final = 65_536
MAX_WORD_BYTES: Final = 65_536
FETCH_AGAIN: Final = "fetch the file again"


@dataclass(frozen=True, slots=True)
class TableChunk:
    """Words that follow each other in a file.

    Attributes:
        words: The words in UTF-8, or what the file has for them.
        rows: Their vectors, (n, D), float32, finite.
    """

    words: list[bytes]
    rows: FloatArray


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A file of word vectors.

    Attributes:
        format_name: Its format, for people.
        dimensions: Columns of the vectors, D.
        chunks: Its words in the file's order.
        counts: How often each word stood in the texts that the vectors were trained on, in that order; empty where
            the file does not say.
        ngrams: How words are made of n-grams; None where they are not.
        buckets: The n-grams' rows, (n, D) a chunk, to be read behind the words.
    """

    format_name: str
    dimensions: int
    chunks: Iterator[TableChunk]
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    ngrams: NGrams | None = None
    buckets: Iterator[FloatArray] = field(default_factory=lambda: iter(()))


def rows_a_chunk(dimensions: int) -> int:
    """Return how many rows of a width are read at once."""
    return max(1, CHUNK_NUMBERS // dimensions)


def check_dimensions(dimensions: int, where: str) -> None:
    """Refuse a width that no table has.

    Raises:
        FormatError: It is none, or beyond `MAX_DIMENSIONS`.
    """
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise FormatError(
            f"{where}: vectors of {dimensions} values; 1 to {MAX_DIMENSIONS} are read"
        )
