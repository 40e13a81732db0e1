"""What a model gives beside token states, and how it is made of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend, BackendFactory, BackendOptions
from nestvec.engine.types import Batch, FloatArray, Layout, OutputKind
from nestvec.engine.vectors.pooling import pool
from nestvec.errors import BackendError

# States of so many tokens at a time become weights of all terms: 128 x 30,522 of them are 16 MB.
VOCABULARY_STEP: Final = 128


class RowFunction(Protocol):
    """A small graph that takes rows and gives rows; may be called from several threads at once."""

    @property
    def width(self) -> int:
        """Of the rows given."""

    def __call__(self, rows: FloatArray) -> FloatArray:
        """(n, in) to (m, width), float32.

        Raises:
            BackendError: The runtime failed.
        """


@dataclass(frozen=True, slots=True)
class Outputs:
    """From token states (T, W) to what callers ask for.

    Attributes:
        pooling: Key of `pooling.POOLINGS`.
        states: How many leading columns are pooled; None for all. Others are outputs of their own.
        head: Of pooled rows: dense layers behind the pooling, or a classifier's.
        pools_last: Whether the head takes each token's state, and what it gives is pooled.
        tokens: Columns of token vectors; all by default.
        lexical: Column of each token's own weight (BGE-M3, arXiv:2402.03216); None where there is none.
        special_ids: Ids that have no lexical weight, whatever the column says.
        vocabulary: States (n, H) to weights of all terms (1, V): SPLADE (arXiv:2109.10086).
        merge: How weights of parts of a text become one, as the model's own pooling does.
        term_weights: Weight of every id, (V,), for queries that need no model; None where queries go through it.
    """

    pooling: str = "mean"
    states: int | None = None
    head: RowFunction | None = None
    pools_last: bool = False
    tokens: slice = field(default_factory=lambda: slice(None))
    lexical: int | None = None
    special_ids: tuple[int, ...] = ()
    vocabulary: RowFunction | None = None
    merge: str = "max"
    term_weights: FloatArray | None = None

    def width(self, kind: OutputKind, given: int) -> int | None:
        """Of an output's rows; None where a row is not a vector.

        Args:
            kind: The output.
            given: Columns that the backend gives.
        """
        if kind is OutputKind.SPARSE:
            return None
        if kind is OutputKind.TOKENS:
            return len(range(*self.tokens.indices(given)))
        if self.head is not None:
            return self.head.width
        return given if self.states is None else self.states

    def pooled(
        self, hidden: FloatArray, offsets: NDArray[np.int64], skip: NDArray[np.int64]
    ) -> FloatArray:
        """Vectors or labels' scores, (B, D), of states packed end to end; see `pooling.pool`."""
        states = hidden[:, : self.states]
        if self.pools_last:
            return pool(self.pooling, self.headed(states), offsets, skip)
        return self.headed(pool(self.pooling, states, offsets, skip))

    def headed(self, pooled: FloatArray) -> FloatArray:
        """Pooled rows through what stands behind the pooling."""
        return pooled if self.head is None else self.head(pooled)

    def sparse(self, hidden: FloatArray, ids: NDArray[np.int32]) -> FloatArray:
        """Terms of one input, (k, 2): id and weight, ids rising. They are below 2^24, which float32 holds exactly.

        Args:
            hidden: Its states, (n, W).
            ids: Its tokens, (n,).
        """
        if self.lexical is not None:
            return self._lexical(np.maximum(hidden[:, self.lexical], 0), ids)
        if self.vocabulary is None:
            raise ValueError("this model has no sparse output")
        merge = MERGES[self.merge]
        steps = range(0, len(hidden), VOCABULARY_STEP)
        parts = [self.vocabulary(hidden[start : start + VOCABULARY_STEP]) for start in steps]
        weights = merge(np.concatenate(parts), axis=0)
        terms = np.flatnonzero(weights > 0)
        return np.stack([terms.astype(np.float32), weights[terms]], axis=1)

    def sparse_query(self, ids: NDArray[np.int32]) -> FloatArray:
        """Terms of a query by their stored weights alone, (k, 2)."""
        if self.term_weights is None:
            raise ValueError("this model has no stored weights")
        terms = np.unique(ids)
        weights = self.term_weights[terms]
        kept = weights > 0
        return np.stack([terms[kept].astype(np.float32), weights[kept]], axis=1)

    def _lexical(self, weights: FloatArray, ids: NDArray[np.int32]) -> FloatArray:
        """The greatest weight of each id."""
        terms, place = np.unique(ids, return_inverse=True)
        found = np.zeros(len(terms), np.float32)
        np.maximum.at(found, place, weights)
        kept = (found > 0) & ~np.isin(terms, self.special_ids)
        return np.stack([terms[kept].astype(np.float32), found[kept]], axis=1)


MERGES: Final[Mapping[str, Callable[..., FloatArray]]] = {"max": np.max, "sum": np.sum}


@dataclass(frozen=True, slots=True)
class BackendRows:
    """A graph from `rows` (n, in) to `pooled` (m, width) as a `RowFunction`."""

    backend: Backend

    @property
    def width(self) -> int:
        """Of the rows given."""
        return self.backend.hidden_size

    def __call__(self, rows: FloatArray) -> FloatArray:
        """Run it.

        Raises:
            BackendError: The runtime failed.
        """
        lengths = np.ones(len(rows), np.int64)
        batch = Batch({"rows": np.ascontiguousarray(rows)}, lengths, Layout.ROWS)
        found = self.backend.run(batch).pooled
        if found is None:
            raise BackendError("a head's graph gave no rows")
        return found


def open_rows(path: Path, open_backend: BackendFactory) -> RowFunction:
    """Open a small graph, on the CPU.

    Raises:
        FormatError: It cannot be opened.
    """
    return BackendRows(open_backend(path, Layout.ROWS, BackendOptions(provider="cpu")))
