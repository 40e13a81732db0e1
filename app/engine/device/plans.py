"""What a graph takes and gives in a run of some shape: packed, as we export it, or padded, as others do. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from app.engine.backend import CostModel
from app.engine.collate import collate
from app.engine.device.arrays import BOUNDS, DEVICE_INPUTS, PAGES, Array, Feeds, feeds
from app.engine.device.cost import DeviceCost
from app.engine.device.session import Tensor
from app.engine.device.shapes import (
    Shape,
    bucket_for,
    buckets,
    exact_shape,
    padded_bucket_for,
    padded_buckets,
    padded_shape,
)
from app.engine.graph_io import KNOWN_INPUTS, POOLED_OUTPUTS, token_output
from app.engine.types import Batch, FloatArray, Item, Layout, RawOutput
from app.errors import FormatError

HIDDEN = "hidden"
POOLED = "pooled"
HALF = "pooled_half"


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
    def layout(self) -> Layout:
        """Which batches it takes."""

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


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """Of our own graphs; see `export/device_graph.py`.

    Attributes:
        page: Tokens, heads and width of a page of keys; zeros where it has none.
        reads_offsets: Whether a kernel reads the values of `token_offset`, and waits for the host besides.
        widths: Columns of each output.
    """

    hidden_size: int
    pooling: str
    layers: int
    page: tuple[int, int, int]
    reads_offsets: bool
    is_padded: bool
    widths: Mapping[str, int]
    layout: Layout = Layout.PACKED
    gives_tokens: bool = True

    @classmethod
    def of(
        cls,
        inputs: Iterable[str],
        outputs: Mapping[str, Tensor],
        said: Mapping[str, str],
        max_tokens: int,
    ) -> Self:
        """Read what a graph says of itself.

        Raises:
            FormatError: It is no graph for a device.
        """
        del max_tokens
        if unknown := set(inputs) - DEVICE_INPUTS:
            raise FormatError(f"inputs nothing can feed: {', '.join(sorted(unknown))}")
        width = outputs[HIDDEN].shape[-1] if HIDDEN in outputs else None
        if width is None:
            raise FormatError(f"not a graph for a device: no output '{HIDDEN}' of a fixed width")
        tokens, heads, size = (int(n) for n in said.get("nestvec.pages", "0,0,0").split(","))
        return cls(
            hidden_size=width,
            pooling=said.get("nestvec.pooling", "") if POOLED in outputs else "",
            layers=int(said.get("nestvec.device_layers", "0")),
            page=(tokens, heads, size),
            reads_offsets=said.get("nestvec.reads_offsets") == "1",
            is_padded=said.get("nestvec.is_padded") == "1",
            widths={name: one.shape[-1] or width for name, one in outputs.items()},
        )

    @property
    def waits_for_host(self) -> bool:
        """See `Plan`."""
        return self.reads_offsets

    @property
    def outputs(self) -> Sequence[str]:
        """See `Plan`."""
        return (HIDDEN, POOLED, HALF) if self.pooling else (HIDDEN,)

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """See `DeviceCost`."""
        return DeviceCost(self.hidden_size, self.is_padded)(lengths)

    def is_fed(self, name: str) -> bool:
        """See `Plan`; pages are the device's own, and of offsets most kernels read the shape only."""
        return name not in PAGES and (name != "token_offset" or self.reads_offsets)

    def shape_of(self, name: str, shape: Shape, pages: int) -> tuple[int, ...]:
        """See `Plan`."""
        if name in PAGES:
            return (max(1, pages), *self.page)
        inputs, row = (shape.inputs,), (shape.row,)
        known = {
            "cumulative_lengths": (shape.inputs + 1,),
            "token_offset": inputs + row,
            "gather": inputs + row,
            "pool_gather": inputs + row,
            "row_places": row,
            "block_table": (shape.inputs, max(1, -(-shape.longest // max(1, self.page[0])))),
            BOUNDS: (2,),
        }
        of_inputs = ("past_lengths", "pool_index", "pool_rows", "pool_scales")
        return known.get(name, inputs if name in of_inputs else (shape.tokens,))

    def output_shape(self, name: str, shape: Shape) -> tuple[int, ...]:
        """See `Plan`."""
        rows = shape.tokens if name.startswith(HIDDEN) else shape.inputs
        return rows, self.widths.get(name, self.hidden_size)

    def sizes(self, max_tokens: int, longest: int) -> list[Shape]:
        """See `Plan`."""
        return buckets(max_tokens, longest)

    def captured(self, lengths: NDArray[np.int64], shapes: Iterable[Shape]) -> Shape | None:
        """See `Plan`."""
        return bucket_for(lengths, shapes)

    def exact(self, lengths: NDArray[np.int64]) -> Shape:
        """See `Plan`."""
        return exact_shape(lengths)

    def most_pages(self, shape: Shape) -> int:
        """See `Plan`."""
        return shape.inputs + shape.tokens // max(1, self.page[0])

    def feeds(self, batch: Batch, shape: Shape) -> Feeds:
        """See `Plan`."""
        return feeds(batch, shape, self.pooling, self.page[0])

    def empty(self, shape: Shape) -> Feeds:
        """See `Plan`."""
        starts = np.arange(shape.inputs) * shape.longest
        lengths = np.clip(shape.tokens - starts, 0, shape.longest).astype(np.int64)
        nothing = np.zeros(shape.tokens, np.int64)
        arrays = {"ids": nothing, "types": nothing}
        return self.feeds(Batch(arrays, lengths[lengths > 0], Layout.PACKED), shape)

    def wanted(self, batch: Batch, shape: Shape, layer: int) -> Wanted:
        """See `Plan`."""
        del shape
        suffix = f"_{layer}" if layer else ""
        if not (batch.is_pooled and self.pooling):
            return Wanted(HIDDEN + suffix, int(batch.lengths.sum()), self.hidden_size)
        name = HALF if batch.is_half else POOLED
        columns = min(batch.columns or self.hidden_size, self.hidden_size)
        return Wanted(name + suffix, len(batch.lengths), columns)

    def result(self, batch: Batch, shape: Shape, found: FloatArray) -> RawOutput:
        """See `Plan`."""
        del shape
        is_pooled = batch.is_pooled and bool(self.pooling)
        return RawOutput(pooled=found) if is_pooled else RawOutput(hidden=found)


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
    layout: Layout = Layout.PADDED
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
