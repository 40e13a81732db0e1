"""What the device backend needs to know of a graph: what it takes and gives in a run of some shape. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.layout.arrays import Feeds
from nestvec.backends.cuda.layout.shapes import Shape
from nestvec.engine.types import Batch, FloatArray, RawOutput


@dataclass(frozen=True, slots=True)
class OutputSlice:
    """The part of a run's output that is copied to the host.

    Attributes:
        name: Name of the output.
        rows: Number of leading rows to copy, the output taken as a matrix whatever its shape.
        columns: Number of leading values of each row.
    """

    name: str
    rows: int
    columns: int


class GraphAdapter(Protocol):
    """Knows one graph's inputs and outputs.

    `lengths` are the number of tokens of each input of a batch, (B,), int64.
    """

    @property
    def hidden_size(self) -> int:
        """H, the width of the vectors or token states that the graph gives."""

    @property
    def pooling(self) -> str:
        """How the graph pools where only vectors are wanted; "" where it gives token states only."""

    @property
    def layers(self) -> int:
        """Number of layers to choose from; 0 where all of them always run."""

    @property
    def is_padded(self) -> bool:
        """Whether memory grows with B times the longest input."""

    @property
    def page_bytes(self) -> int:
        """Bytes of a page of keys and of one of values; 0 where the graph has no pages."""

    @property
    def gives_tokens(self) -> bool:
        """Whether the graph gives token states."""

    @property
    def waits_for_host(self) -> bool:
        """Whether one of its kernels waits for the host, so that no run can be captured."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs that may be asked for."""

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch in token equivalents."""

    def is_copied(self, name: str) -> bool:
        """Return whether an input's values are copied to the device; others need memory only."""

    def input_shape(self, name: str, shape: Shape, pages: int) -> tuple[int, ...]:
        """Return an input's sizes in a run whose inputs take so many pages."""

    def output_shape(self, name: str, shape: Shape) -> tuple[int, ...]:
        """Return an output's sizes in a run."""

    def capture_shapes(self, max_tokens: int, longest: int) -> list[Shape]:
        """Return the shapes to capture, rising, of at most so many tokens and of inputs of at most `longest`."""

    def captured_shape(self, lengths: NDArray[np.int64], shapes: Iterable[Shape]) -> Shape | None:
        """Return which of the captured shapes a batch can be padded to; None where it fits into none."""

    def uncaptured_shape(self, lengths: NDArray[np.int64]) -> Shape:
        """Return the shape of a batch that runs without a CUDA graph."""

    def max_pages(self, shape: Shape) -> int:
        """Return how many pages the inputs of any batch of a shape take at most."""

    def feeds(self, batch: Batch, shape: Shape) -> Feeds:
        """Return what a run of a batch is fed."""

    def dummy_feeds(self, shape: Shape) -> Feeds:
        """Return feeds that fill a shape with the longest inputs it allows, of the vocabulary's first token."""

    def output_slice(self, batch: Batch, shape: Shape, layer: int) -> OutputSlice:
        """Return what of a run's output is copied to the host.

        Args:
            batch: The batch that ran.
            shape: Sizes of the run.
            layer: Number of the exit that ran; 0 for the whole graph.
        """

    def raw_output(self, batch: Batch, shape: Shape, values: FloatArray) -> RawOutput:
        """Return what was copied, (rows, columns), float32, as the engine wants it."""
