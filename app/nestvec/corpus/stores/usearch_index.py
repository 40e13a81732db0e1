"""USearch: `vectors.usearch`, an HNSW index of float32, float16, int8 or bits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.store_writer import StoreLayout
from nestvec.corpus.stores.common import BIT_DTYPES, output_dtype, require
from nestvec.corpus.stores.index_file import Keys
from nestvec.errors import FormatError

DTYPES: Final = ("float32", "float16", "int8", "ubinary", "binary")
PACKAGE: Final = ("usearch.index", "usearch")
SCALARS: Final = {"float32": "f32", "float16": "f16", "int8": "i8"}
CONNECTIVITY: Final = 32
EXPANSION_ADD: Final = 200
EXPANSION_SEARCH: Final = 200


class UsearchIndex:
    """An HNSW graph, searched by cosine similarity, or by Hamming distance where the vectors are bits.

    Args:
        path: The file to open; None for a new one.
        layout: What its vectors are.

    Raises:
        FormatError: The file holds no index.
    """

    def __init__(self, path: Path | None, layout: StoreLayout) -> None:
        usearch = require(*PACKAGE)
        self._is_bits = output_dtype(layout.metadata) in BIT_DTYPES
        self._bits = 8 * layout.width
        self._index = usearch.Index(
            ndim=self._bits if self._is_bits else layout.width,
            metric="hamming" if self._is_bits else "cos",
            dtype="b1" if self._is_bits else SCALARS[layout.dtype],
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_SEARCH,
        )
        if path is not None:
            if usearch.Index.metadata(str(path)) is None:
                raise FormatError(f"{path}: is no index of usearch")
            self._index.load(str(path))

    def add(self, keys: Keys, vectors: NDArray[Any]) -> None:
        """Add vectors under new keys."""
        self._index.add(keys.astype(np.uint64), self._values(vectors))

    def remove(self, keys: Keys) -> None:
        """Remove keys; those that are not there are passed over."""
        self._index.remove(keys.astype(np.uint64))

    def search(self, vector: NDArray[Any], limit: int) -> tuple[Sequence[int], Sequence[float]]:
        """Search the graph."""
        found = self._index.search(self._values(vector), limit)
        scores = 1 - found.distances / (self._bits if self._is_bits else 1)
        return found.keys.tolist(), scores.tolist()

    def save(self, path: Path) -> None:
        """Write the index."""
        self._index.save(str(path))

    def _values(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return vectors as the library takes them: bits as unsigned bytes."""
        values = np.ascontiguousarray(vectors)
        return values.view(np.uint8) if self._is_bits else values
