"""Raw vectors of texts that were run before: vectors of every dimension and dtype are made from them without a run.

A key is a hash of what decides the vector: the space, the layers run, and the token ids (with how many of them a prompt
accounts for). Vectors are kept as pooled, before maps, cuts and norms. Eviction is W-TinyLFU (arXiv:1512.00727), by
moka: an ingestion of texts that never come again does not push out the queries that do (measured on Zipf queries
between such scans, 79% of the queries were hits; with LRU 74%; with theine's W-TinyLFU 82%, at four times the time per
look-up).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, Protocol

import numpy as np
from moka_py import Moka
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray, Item, ItemOptions, OutputKind

KEY_BYTES: Final = 16
ENTRY_BYTES: Final = 200  # about what an entry costs beside its vector
Key = bytes


def key_of(space: str, item: Item, options: ItemOptions) -> Key | None:
    """Return the key that an item's vector is kept under; None where it gives more than one vector.

    The text that is hashed decides what an existing vector cache file still holds: its format must not change.
    """
    is_dense = options.kind_of(item) is OutputKind.DENSE
    if not is_dense or item.spans or len(options.exits) > 1 or item.expansion:
        return None
    head = f"{space} {options.exits} {item.skip_tokens} ".encode()
    return blake2b(head + item.ids.tobytes(), digest_size=KEY_BYTES).digest()


class VectorStore(Protocol):
    """Keeps vectors beyond the process; may be called from several threads, and blocks."""

    def get(self, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        """Return the vectors that are there, encoded; a failing disk has none."""

    def put(self, vectors: Mapping[Key, bytes]) -> None:
        """Keep vectors, some time soon."""

    def close(self) -> None:
        """Write what still waits to be written."""


@dataclass(slots=True)
class CacheCounts:
    """What happened to the inputs of a model since the start.

    Attributes:
        hits: Number of vectors found, in memory or in the store.
        stored_hits: Number of vectors found in the store behind.
        misses: Number of vectors that were found in neither.
        saved_tokens: Number of tokens that were not run.
        coalesced: Number of inputs that waited for the run of the same input, in another request or their own.
    """

    hits: int = 0
    stored_hits: int = 0
    misses: int = 0
    saved_tokens: int = 0
    coalesced: int = 0


@dataclass(slots=True)
class VectorCache:
    """Vectors in memory, and a store behind it where there is one.

    Attributes:
        max_bytes: Bytes that all entries may take together.
        dtype: "float32", or "float16" for twice as many; every vector is rounded to it, whether it was cached or not,
            so that an answer does not depend on what was cached.
        store: Keeps vectors beyond the process.
        counts: What happened since the start, by the model's name.
    """

    max_bytes: int
    dtype: str = "float32"
    store: VectorStore | None = None
    counts: dict[str, CacheCounts] = field(default_factory=dict)
    _memory: "Moka[Key, bytes]" = field(init=False)

    def __post_init__(self) -> None:
        """Make the cache in memory."""
        self._memory = Moka(self.max_bytes, weigher=lambda _, vector: len(vector) + ENTRY_BYTES)

    def counts_of(self, model: str) -> CacheCounts:
        """Return what is counted of a model."""
        counts = self.counts.get(model)
        if counts is None:
            counts = self.counts[model] = CacheCounts()
        return counts

    def get(self, keys: Sequence[Key | None]) -> list[FloatArray | None]:
        """Return the vectors that are in memory, (H,) each, float32; None for others."""
        return [self._vector(None if key is None else self._memory.get(key)) for key in keys]

    def get_stored(self, keys: Sequence[Key]) -> dict[Key, FloatArray]:
        """Return the vectors that are in the store; blocks. They are in memory from then on."""
        if self.store is None:
            return {}
        stored = self.store.get(keys)
        for key, vector in stored.items():
            self._memory.set(key, vector)
        return {key: self._decoded(vector) for key, vector in stored.items()}

    def put(self, vectors: Mapping[Key, FloatArray]) -> None:
        """Keep vectors, (H,) each."""
        encoded = {key: self._encoded(vector).tobytes() for key, vector in vectors.items()}
        for key, vector in encoded.items():
            self._memory.set(key, vector)
        if self.store is not None:
            self.store.put(encoded)

    def rounded(self, vectors: FloatArray) -> FloatArray:
        """Return vectors as they would come back from the cache."""
        if self.dtype == "float32":
            return vectors
        return self._encoded(vectors).astype(np.float32)

    def close(self) -> None:
        """Let the store write what still waits to be written."""
        if self.store is not None:
            self.store.close()

    @property
    def held_bytes(self) -> int:
        """Bytes that the entries take."""
        self._memory.run_pending_tasks()
        return self._memory.weighted_size()

    @property
    def entries(self) -> int:
        """Number of entries."""
        self._memory.run_pending_tasks()
        return self._memory.count()

    def _encoded(self, vectors: FloatArray) -> NDArray[Any]:
        """Return vectors as they are kept; values beyond the range of float16 become its extremes."""
        if self.dtype == "float32":
            return vectors
        limit = np.finfo(self.dtype).max
        return np.clip(vectors, -limit, limit).astype(self.dtype)

    def _vector(self, stored: bytes | None) -> FloatArray | None:
        return None if stored is None else self._decoded(stored)

    def _decoded(self, stored: bytes) -> FloatArray:
        return np.frombuffer(stored, self.dtype).astype(np.float32, copy=False)
