"""Pooler: what a model makes of token states."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend, BackendFactory, BackendOptions
from nestvec.engine.types import Batch, FloatArray, Layout
from nestvec.engine.vectors.pooling import mean_of_parts, pool, pooling_modes
from nestvec.errors import BackendError


class RowFunction(Protocol):
    """A small graph that takes rows and gives rows; may be called from several threads at once."""

    @property
    def width(self) -> int:
        """Number of columns of the rows given."""

    def __call__(self, rows: FloatArray) -> FloatArray:
        """Turn rows (n, in) into rows (m, width), float32.

        Raises:
            BackendError: The runtime failed.
        """


@dataclass(frozen=True, slots=True)
class Pooler:
    """How a model's outputs are made of its token states (T, W).

    Attributes:
        pooling: Key of `pooling.POOLINGS`, or several with `pooling.JOINT` between them.
        pooled_columns: Number of leading columns that are pooled; None for all. Others are outputs of their own.
        part_column: Column that is 1 for a token that goes on with the word of the token before it: words are averaged
            before they are pooled. None where every token counts for itself.
        head: What pooled rows go through: dense layers behind the pooling, or a classifier's; None for nothing.
        head_before_pooling: Whether the head takes each token's state, and what it gives is pooled.
        token_columns: Columns that are a token's vector; all by default.
        lexical_column: Column of each token's own weight (BGE-M3, arXiv:2402.03216); None where there is none.
        special_ids: Ids that have no lexical weight, whatever the column says.
        vocabulary_head: States (n, H) to weights of all terms (1, V): SPLADE (arXiv:2109.10086).
        latent_head: Pooled rows (n, H) to latents (n, L), of which the greatest are a text's terms (arXiv:2503.01776).
        active_latents: How many of them.
        merge: How weights of parts of a text become one, as the model's own pooling does: "max" or "sum".
        term_weights: Weight of every id, (V,), for queries that need no model; None where queries go through it.
        gives_zeros: Whether a vector of zeros is an answer, as a static model's to a text of unknown tokens is, rather
            than the sign of a broken graph.
    """

    pooling: str = "mean"
    pooled_columns: int | None = None
    part_column: int | None = None
    head: RowFunction | None = None
    head_before_pooling: bool = False
    token_columns: slice = field(default_factory=lambda: slice(None))
    lexical_column: int | None = None
    special_ids: tuple[int, ...] = ()
    vocabulary_head: RowFunction | None = None
    latent_head: RowFunction | None = None
    active_latents: int = 0
    merge: str = "max"
    term_weights: FloatArray | None = None
    gives_zeros: bool = False

    def vector_width(self, hidden_size: int) -> int:
        """Return the number of dimensions of a pooled vector, behind the head.

        Args:
            hidden_size: Number of columns that the backend gives.
        """
        if self.head is not None:
            return self.head.width
        columns = hidden_size if self.pooled_columns is None else self.pooled_columns
        return len(pooling_modes(self.pooling)) * columns

    def pool(
        self, hidden: FloatArray, offsets: NDArray[np.int64], skip: NDArray[np.int64]
    ) -> FloatArray:
        """Pool states packed end to end to vectors or labels' scores, (B, D), float32.

        Args:
            hidden: Token states, (T, W), float32.
            offsets: Where each input starts, then T; (B + 1,).
            skip: Number of leading tokens of each input that are left out, (B,).
        """
        states = hidden[:, : self.pooled_columns]
        if self.part_column is not None:
            goes_on = hidden[:, self.part_column] > 0
            states, offsets, skip = mean_of_parts(states, goes_on, offsets, skip)
        if self.head_before_pooling:
            return pool(self.pooling, self.apply_head(states), offsets, skip)
        return self.apply_head(pool(self.pooling, states, offsets, skip))

    def apply_head(self, pooled: FloatArray) -> FloatArray:
        """Put pooled rows, (B, H), through the head; (B, D), float32."""
        return pooled if self.head is None else self.head(pooled)


@dataclass(frozen=True, slots=True)
class BackendRows:
    """A graph from `rows` (n, in) to `pooled` (m, width) as a `RowFunction`.

    Attributes:
        backend: Runs the graph.
    """

    backend: Backend

    @property
    def width(self) -> int:
        """Number of columns of the rows given."""
        return self.backend.info.hidden_size

    def __call__(self, rows: FloatArray) -> FloatArray:
        """Run the graph on rows (n, in); gives rows (m, width), float32.

        Raises:
            BackendError: The runtime failed.
        """
        lengths = np.ones(len(rows), np.int64)
        batch = Batch({"rows": np.ascontiguousarray(rows)}, lengths, Layout.ROWS)
        pooled = self.backend.run(batch).pooled
        if pooled is None:
            raise BackendError("a head's graph gave no rows")
        return pooled


def open_rows(path: Path, open_backend: BackendFactory) -> RowFunction:
    """Open a small graph, on the CPU.

    Raises:
        FormatError: The graph cannot be opened.
    """
    return BackendRows(open_backend(path, Layout.ROWS, BackendOptions(provider="cpu")))
