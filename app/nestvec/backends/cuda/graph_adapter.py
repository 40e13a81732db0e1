"""What the device backend needs to know of a graph: what it takes and gives in a run of some shape. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.arrays import Feeds
from nestvec.backends.cuda.shapes import Shape
from nestvec.engine.types import Batch, FloatArray, RawOutput


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is copied of a run's output.

    Attributes:
        rows: Its leading rows, of whatever shape, as a matrix.
        columns: Leading values of each.
    """

    name: str
    rows: int
    columns: int


class Plan(Protocol):
    """Of one graph."""

    @property
    def hidden_size(self) -> int:
        """Columns of what it gives."""

    @property
    def pooling(self) -> str:
        """How it pools where vectors are all that is wanted; "" where it gives token states only."""

    @property
    def layers(self) -> int:
        """How many there are to choose from; 0 where all are run."""

    @property
    def is_padded(self) -> bool:
        """Whether memory grows with B times the longest input."""

    @property
    def gives_tokens(self) -> bool:
        """Whether there are token states."""

    @property
    def waits_for_host(self) -> bool:
        """Whether a kernel does, so that nothing can be captured."""

    @property
    def outputs(self) -> Sequence[str]:
        """All it gives."""

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price of a batch."""

    def is_fed(self, name: str) -> bool:
        """Whether an input's values are copied."""

    def shape_of(self, name: str, shape: Shape, pages: int) -> tuple[int, ...]:
        """An input's, in a run whose inputs take so many pages."""

    def output_shape(self, name: str, shape: Shape) -> tuple[int, ...]:
        """An output's, in a run."""

    def sizes(self, max_tokens: int, longest: int) -> list[Shape]:
        """What to capture, rising."""

    def captured(self, lengths: NDArray[np.int64], shapes: Iterable[Shape]) -> Shape | None:
        """Which of what was captured a batch can be filled up to."""

    def exact(self, lengths: NDArray[np.int64]) -> Shape:
        """Of a batch that runs by itself."""

    def most_pages(self, shape: Shape) -> int:
        """What the inputs of any batch of a shape take."""

    def feeds(self, batch: Batch, shape: Shape) -> Feeds:
        """What a run is fed."""

    def empty(self, shape: Shape) -> Feeds:
        """Inputs as long as may be, of the first word."""

    def wanted(self, batch: Batch, shape: Shape, layer: int) -> Wanted:
        """What is copied to the host."""

    def result(self, batch: Batch, shape: Shape, found: FloatArray) -> RawOutput:
        """What was copied, as the engine wants it."""
