"""Raw vectors of texts that were run before: every dimension and dtype is made from one of them without a run.

A key is a hash of what decides the vector: the space, the layers run, and the token ids (with how many of them a prompt
accounts for). Vectors are kept as pooled, before maps, cuts and norms. Eviction is W-TinyLFU (arXiv:1512.00727), by
moka: an ingestion of texts that never come again does not push out the queries that do (measured on Zipf queries
between such scans, hits of queries: 79%, LRU 74%; theine's W-TinyLFU 82%, at four times the time a look-up).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, Protocol

import numpy as np
from moka_py import Moka
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray, Item, OutputKind

KEY_BYTES: Final = 16
ENTRY_BYTES: Final = 200  # what an entry costs beside its vector, about
Key = bytes


def key_of(space: str, item: Item) -> Key | None:
    """What an item's vector is kept under; None where it gives more than one vector."""
    if item.kind is not OutputKind.DENSE or item.spans or len(item.exits) > 1 or item.expansion:
        return None
    head = f"{space} {item.exits} {item.skip_tokens} ".encode()
    return blake2b(head + item.ids.tobytes(), digest_size=KEY_BYTES).digest()


class VectorStore(Protocol):
    """Keeps vectors beyond the process; may be called from several threads, and blocks."""

    def get(self, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        """Those that are there; a failing disk has none."""

    def put(self, vectors: Mapping[Key, bytes]) -> None:
        """Keep them, some time soon."""

    def close(self) -> None:
        """Write what still waits."""


@dataclass(slots=True)
class CacheCounts:
    """What happened since the start.

    Attributes:
        hits: Vectors found in memory.
        stored_hits: Vectors found in the store behind.
        saved_tokens: Tokens that were not run.
        coalesced: Inputs that waited for the run of the same one in another request, or the same.
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
        max_bytes: What entries may take together.
        dtype: float32, or float16 for twice as many; every vector is rounded to it, kept before or not, so that an
            answer does not depend on what was cached.
        store: Keeps them beyond the process.
    """

    max_bytes: int
    dtype: str = "float32"
    store: VectorStore | None = None
    counts: CacheCounts = field(default_factory=CacheCounts)
    _memory: "Moka[Key, bytes]" = field(init=False)

    def __post_init__(self) -> None:
        """Make room."""
        self._memory = Moka(self.max_bytes, weigher=lambda _, vector: len(vector) + ENTRY_BYTES)

    def get(self, keys: Sequence[Key | None]) -> list[FloatArray | None]:
        """Vectors that are in memory, (H,) each, float32; None for others."""
        return [self._vector(None if key is None else self._memory.get(key)) for key in keys]

    def get_stored(self, keys: Sequence[Key]) -> dict[Key, FloatArray]:
        """Vectors that are in the store; blocks. They are in memory from then on."""
        if self.store is None:
            return {}
        found = self.store.get(keys)
        for key, vector in found.items():
            self._memory.set(key, vector)
        return {key: self._decoded(vector) for key, vector in found.items()}

    def put(self, vectors: Mapping[Key, FloatArray]) -> None:
        """Keep vectors, (H,) each."""
        encoded = {key: self._stored(vector).tobytes() for key, vector in vectors.items()}
        for key, vector in encoded.items():
            self._memory.set(key, vector)
        if self.store is not None:
            self.store.put(encoded)

    def rounded(self, vectors: FloatArray) -> FloatArray:
        """Vectors as they would come back."""
        if self.dtype == "float32":
            return vectors
        return self._stored(vectors).astype(np.float32)

    def close(self) -> None:
        """Let the store write what waits."""
        if self.store is not None:
            self.store.close()

    @property
    def held_bytes(self) -> int:
        """What entries take."""
        self._memory.run_pending_tasks()
        return self._memory.weighted_size()

    @property
    def entries(self) -> int:
        """How many there are."""
        self._memory.run_pending_tasks()
        return self._memory.count()

    def _stored(self, vectors: FloatArray) -> NDArray[Any]:
        """As they are kept; what float16 has no number for becomes its greatest."""
        if self.dtype == "float32":
            return vectors
        most = np.finfo(self.dtype).max
        return np.clip(vectors, -most, most).astype(self.dtype)

    def _vector(self, stored: bytes | None) -> FloatArray | None:
        return None if stored is None else self._decoded(stored)

    def _decoded(self, stored: bytes) -> FloatArray:
        return np.frombuffer(stored, self.dtype).astype(np.float32, copy=False)
