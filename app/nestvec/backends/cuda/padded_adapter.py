"""Other people's graphs in a run of some shape: `input_ids`, `attention_mask`, `token_type_ids`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.arrays import Array, Feeds
from nestvec.backends.cuda.graph_adapter import Wanted
from nestvec.backends.cuda.session import Tensor
from nestvec.backends.cuda.shapes import Shape, padded_bucket_for, padded_buckets, padded_shape
from nestvec.backends.graph_io import KNOWN_INPUTS, POOLED_OUTPUTS, token_output
from nestvec.engine.backend import CostModel
from nestvec.engine.core.collate import collate
from nestvec.engine.types import Batch, FloatArray, Item, Layout, RawOutput
from nestvec.errors import FormatError


@dataclass(frozen=True, slots=True)
class PaddedPlan:
    """Of other people's graphs: `input_ids`, `attention_mask`, `token_type_ids`, each (B, S).

    Attributes:
        output: Token states (B, S, H), or vectors (B, H) where the graph pools.
        max_tokens: The most of an input: a longer row would look for positions that there are not.
    """

    output: str
    hidden_size: int
    max_tokens: int
    pooling: str = ""
    layers: int = 0
    is_padded: bool = True
    waits_for_host: bool = False

    @classmethod
    def of(
        cls,
        inputs: Iterable[str],
        outputs: Mapping[str, Tensor],
        said: Mapping[str, str],
        max_tokens: int,
    ) -> Self:
        """Find the output.

        Raises:
            FormatError: Something is missing, or nothing can feed it.
        """
        del said
        if unknown := set(inputs) - KNOWN_INPUTS[Layout.PADDED]:
            raise FormatError(f"inputs nothing can feed: {', '.join(sorted(unknown))}")
        name = token_output("the graph", outputs)
        width = outputs[name].shape[-1]
        if width is None:
            raise FormatError(f"the last axis of output '{name}' has no fixed size")
        return cls(name, width, max_tokens)

    @property
    def gives_tokens(self) -> bool:
        """See `Plan`."""
        return self.output not in POOLED_OUTPUTS

    @property
    def outputs(self) -> Sequence[str]:
        """See `Plan`; others that the graph has are not asked for."""
        return (self.output,)

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """See `CostModel`."""
        return CostModel.of_bert(Layout.PADDED, self.hidden_size)(lengths)

    def is_fed(self, name: str) -> bool:
        """See `Plan`."""
        del name
        return True

    def shape_of(self, name: str, shape: Shape, pages: int) -> tuple[int, ...]:
        """See `Plan`."""
        del name, pages
        return shape.inputs, shape.longest

    def output_shape(self, name: str, shape: Shape) -> tuple[int, ...]:
        """See `Plan`."""
        del name
        inputs = (shape.inputs, shape.longest) if self.gives_tokens else (shape.inputs,)
        return (*inputs, self.hidden_size)

    def sizes(self, max_tokens: int, longest: int) -> list[Shape]:
        """See `Plan`."""
        return padded_buckets(max_tokens, longest)

    def captured(self, lengths: NDArray[np.int64], shapes: Iterable[Shape]) -> Shape | None:
        """See `Plan`."""
        return padded_bucket_for(lengths, shapes, self.max_tokens)

    def exact(self, lengths: NDArray[np.int64]) -> Shape:
        """See `Plan`; rounded up, so that kernels see few shapes."""
        return padded_shape(lengths, self.max_tokens)

    def most_pages(self, shape: Shape) -> int:
        """See `Plan`."""
        del shape
        return 0

    def feeds(self, batch: Batch, shape: Shape) -> Feeds:
        """See `Plan`; inputs of padding see their first token, so that no softmax is over nothing."""

        def spread(name: str) -> Array:
            whole = np.zeros((shape.inputs, shape.longest), np.int64)
            own = batch.arrays[name]
            whole[: own.shape[0], : own.shape[1]] = own
            if name == "attention_mask":
                whole[own.shape[0] :, 0] = 1
            return whole

        make = {name: (lambda one=name: spread(one)) for name in KNOWN_INPUTS[Layout.PADDED]}
        return Feeds(batch.lengths, make, 0)

    def empty(self, shape: Shape) -> Feeds:
        """See `Plan`."""
        item = Item(np.zeros(shape.longest, np.int32))
        return self.feeds(collate([item] * shape.inputs, Layout.PADDED), shape)

    def wanted(self, batch: Batch, shape: Shape, layer: int) -> Wanted:
        """See `Plan`."""
        del layer
        rows = len(batch.lengths) * (shape.longest if self.gives_tokens else 1)
        return Wanted(self.output, rows, self.hidden_size)

    def result(self, batch: Batch, shape: Shape, found: FloatArray) -> RawOutput:
        """See `Plan`."""
        if not self.gives_tokens:
            return RawOutput(pooled=found)
        states = found.reshape(len(batch.lengths), shape.longest, self.hidden_size)
        is_token = np.arange(shape.longest)[None, :] < batch.lengths[:, None]
        return RawOutput(hidden=np.ascontiguousarray(states[is_token]))
