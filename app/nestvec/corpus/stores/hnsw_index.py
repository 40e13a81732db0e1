"""hnswlib: `vectors.hnsw`, an HNSW index of float32."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.store_writer import StoreLayout
from nestvec.corpus.stores.common import require
from nestvec.corpus.stores.index_file import Keys

DTYPES: Final = ("float32",)
PACKAGE: Final = ("hnswlib", "hnswlib")
NEIGHBORS: Final = 32
EF_CONSTRUCTION: Final = 200
# Not kept in the file: who opens it elsewhere sets it again.
EF_SEARCH: Final = 200


class HnswlibIndex:
    """An HNSW graph, searched by cosine similarity.

    Removed keys are marked and their places taken by new ones.

    Args:
        path: The file to open; None for a new one.
        layout: What its vectors are.
    """

    def __init__(self, path: Path | None, layout: StoreLayout) -> None:
        self._index = require(*PACKAGE).Index(space="cosine", dim=layout.width)
        if path is None:
            self._index.init_index(
                max_elements=1,
                ef_construction=EF_CONSTRUCTION,
                M=NEIGHBORS,
                allow_replace_deleted=True,
            )
        else:
            self._index.load_index(str(path), allow_replace_deleted=True)
        self._index.set_ef(EF_SEARCH)

    def add(self, keys: Keys, vectors: NDArray[Any]) -> None:
        """Add vectors under new keys, or under removed ones."""
        known = set(self._index.get_ids_list())
        for key in known.intersection(keys.tolist()):
            # What is marked cannot be written to; what is not marked is no error here.
            with suppress(RuntimeError):
                self._index.unmark_deleted(key)
        values = np.ascontiguousarray(vectors, np.float32)
        is_known = np.array([key in known for key in keys.tolist()], bool)
        if is_known.any():
            self._index.add_items(values[is_known], keys[is_known])
        if not is_known.all():
            count = self._index.get_current_count() + int((~is_known).sum())
            if count > self._index.get_max_elements():
                self._index.resize_index(max(count, 2 * self._index.get_max_elements()))
            self._index.add_items(values[~is_known], keys[~is_known], replace_deleted=True)

    def remove(self, keys: Keys) -> None:
        """Mark keys as removed; those that are not there, or marked already, are passed over."""
        for key in set(self._index.get_ids_list()).intersection(keys.tolist()):
            with suppress(RuntimeError):
                self._index.mark_deleted(key)

    def search(self, vector: NDArray[Any], limit: int) -> tuple[Sequence[int], Sequence[float]]:
        """Search the graph."""
        self._index.set_ef(max(EF_SEARCH, limit))
        values = np.ascontiguousarray(vector, np.float32)
        keys, distances = self._index.knn_query(values[None], limit)
        return keys[0].tolist(), (1 - distances[0]).tolist()

    def save(self, path: Path) -> None:
        """Write the index."""
        self._index.save_index(str(path))
