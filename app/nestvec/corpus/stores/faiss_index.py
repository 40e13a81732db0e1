"""FAISS: `vectors.faiss`, an exact index (`IndexFlatIP` under ids; scalar quantizer for float16 and int8; binary)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.store_writer import StoreLayout
from nestvec.corpus.stores.common import BIT_DTYPES, output_dtype, require
from nestvec.corpus.stores.index_file import Keys

DTYPES: Final = ("float32", "float16", "int8", "ubinary", "binary")
PACKAGE: Final = ("faiss", "faiss")


class FaissIndex:
    """An index over all vectors, searched by their dot product, or by Hamming distance where they are bits.

    Args:
        path: The file to open; None for a new one.
        layout: What its vectors are.
    """

    def __init__(self, path: Path | None, layout: StoreLayout) -> None:
        self._faiss = faiss = require(*PACKAGE)
        self._is_bits = output_dtype(layout.metadata) in BIT_DTYPES
        self._bits = 8 * layout.width
        if path is not None:
            read = faiss.read_index_binary if self._is_bits else faiss.read_index
            self._index = read(str(path))
        elif self._is_bits:
            self._index = faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(self._bits))
        elif layout.dtype == "float32":
            self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(layout.width))
        else:
            kinds = faiss.ScalarQuantizer
            # Both keep the values as they are: halves, and integers of -128 to 127.
            kind = kinds.QT_fp16 if layout.dtype == "float16" else kinds.QT_8bit_direct_signed
            stored = faiss.IndexScalarQuantizer(layout.width, kind, faiss.METRIC_INNER_PRODUCT)
            self._index = faiss.IndexIDMap2(stored)

    def add(self, keys: Keys, vectors: NDArray[Any]) -> None:
        """Add vectors under new keys."""
        self._index.add_with_ids(self._values(vectors), keys)

    def remove(self, keys: Keys) -> None:
        """Remove keys; those that are not there are passed over."""
        self._index.remove_ids(keys)

    def search(self, vector: NDArray[Any], limit: int) -> tuple[Sequence[int], Sequence[float]]:
        """Search all vectors."""
        scores, keys = self._index.search(self._values(vector[None]), limit)
        found = keys[0] >= 0
        values = 1 - scores[0][found] / self._bits if self._is_bits else scores[0][found]
        return keys[0][found].tolist(), values.tolist()

    def save(self, path: Path) -> None:
        """Write the index."""
        write = self._faiss.write_index_binary if self._is_bits else self._faiss.write_index
        write(self._index, str(path))

    def _values(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return vectors as FAISS takes them: bytes of bits, else float32."""
        if self._is_bits:
            return np.ascontiguousarray(vectors).view(np.uint8)
        return np.ascontiguousarray(vectors, np.float32)
