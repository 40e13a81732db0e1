"""What graphs that others made take and give: `input_ids`, `attention_mask`, `token_type_ids`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.layout.arrays import Array, Feeds
from nestvec.backends.cuda.layout.graph_adapter import OutputSlice
from nestvec.backends.cuda.layout.shapes import Shape, padded_shape
from nestvec.backends.cuda.session import Tensor
from nestvec.backends.graph_io import KNOWN_INPUTS, POOLED_OUTPUTS, token_output
from nestvec.engine.backend import CostModel
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Batch, FloatArray, Item, Layout, RawOutput
from nestvec.errors import FormatError


@dataclass(frozen=True, slots=True)
class PaddedAdapter:
    """The `GraphAdapter` of graphs that others made, whose inputs are all (B, S).

    Attributes:
        output: Name of the output: token states (B, S, H), or vectors (B, H) where the graph pools.
        hidden_size: H.
        max_tokens: Most tokens of an input; a longer row would look up positions that the model does not have.
        pooling: Always "", as how such a graph pools is not known.
        layers: Always 0, as such a graph has no exits.
        is_padded: Always True.
        waits_for_host: Always True, as far as is known: such graphs are never captured.
        page_bytes: Always 0, as such a graph has no pages.
    """

    output: str
    hidden_size: int
    max_tokens: int
    pooling: str = ""
    layers: int = 0
    is_padded: bool = True
    waits_for_host: bool = True
    page_bytes: int = 0

    @classmethod
    def of(
        cls,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        max_tokens: int,
    ) -> Self:
        """Find the graph's output.

        Raises:
            FormatError: There is no known output, or nothing can feed one of the inputs.
        """
        del metadata
        if unknown := set(inputs) - KNOWN_INPUTS[Layout.PADDED]:
            raise FormatError(f"inputs nothing can feed: {', '.join(sorted(unknown))}")
        name = token_output("the graph", outputs)
        width = outputs[name].shape[-1]
        if width is None:
            raise FormatError(f"the last axis of output '{name}' has no fixed size")
        return cls(name, width, max_tokens)

    @property
    def gives_tokens(self) -> bool:
        """Whether the output is token states."""
        return self.output not in POOLED_OUTPUTS

    @property
    def outputs(self) -> Sequence[str]:
        """The one output that is asked for; others that the graph has are not computed for us."""
        return (self.output,)

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch as `CostModel` prices padded ones."""
        return CostModel.of_bert(Layout.PADDED, self.hidden_size)(lengths)

    def is_copied(self, name: str) -> bool:
        """Return True: the values of every input are copied."""
        del name
        return True

    def input_shape(self, name: str, shape: Shape, pages: int) -> tuple[int, ...]:
        """Return (B, S), the sizes of every input."""
        del name, pages
        return shape.inputs, shape.longest

    def output_shape(self, name: str, shape: Shape) -> tuple[int, ...]:
        """Return (B, S, H) for token states, (B, H) for vectors."""
        del name
        inputs = (shape.inputs, shape.longest) if self.gives_tokens else (shape.inputs,)
        return (*inputs, self.hidden_size)

    def capture_shapes(self, max_tokens: int, longest: int) -> list[Shape]:
        """Return none."""
        del max_tokens, longest
        return []

    def captured_shape(self, lengths: NDArray[np.int64], shapes: Iterable[Shape]) -> Shape | None:
        """Return None."""
        del lengths, shapes
        return None

    def uncaptured_shape(self, lengths: NDArray[np.int64]) -> Shape:
        """Return the batch's shape rounded up, so that kernels see few shapes."""
        return padded_shape(lengths, self.max_tokens)

    def max_pages(self, shape: Shape) -> int:
        """Return 0: such graphs have no pages."""
        del shape
        return 0

    def feeds(self, batch: Batch, shape: Shape) -> Feeds:
        """Return the padded arrays of a batch; padding inputs see their first token, so that softmax has a term."""

        def padded(name: str) -> Array:
            array = np.zeros((shape.inputs, shape.longest), np.int64)
            values = batch.arrays[name]
            array[: values.shape[0], : values.shape[1]] = values
            if name == "attention_mask":
                array[values.shape[0] :, 0] = 1
            return array

        make = {name: (lambda name=name: padded(name)) for name in KNOWN_INPUTS[Layout.PADDED]}
        return Feeds(batch.lengths, make, 0)

    def dummy_feeds(self, shape: Shape) -> Feeds:
        """Return feeds of inputs that all have the most tokens, all of token 0."""
        item = Item(np.zeros(shape.longest, np.int32))
        return self.feeds(collate([item] * shape.inputs, Layout.PADDED), shape)

    def output_slice(self, batch: Batch, shape: Shape, layer: int) -> OutputSlice:
        """Return the rows of the batch's own inputs: all their cells for token states, one each for vectors."""
        del layer
        rows = len(batch.lengths) * (shape.longest if self.gives_tokens else 1)
        return OutputSlice(self.output, rows, self.hidden_size)

    def raw_output(self, batch: Batch, shape: Shape, values: FloatArray) -> RawOutput:
        """Return the copied rows as vectors, or as token states without padding."""
        if not self.gives_tokens:
            return RawOutput(pooled=values)
        states = values.reshape(len(batch.lengths), shape.longest, self.hidden_size)
        is_token = np.arange(shape.longest)[None, :] < batch.lengths[:, None]
        return RawOutput(hidden=np.ascontiguousarray(states[is_token]))
