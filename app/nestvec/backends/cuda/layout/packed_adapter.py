"""What graphs that Nestvec exports for devices take and give; see `export/device_graph.py`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.layout.arrays import BOUNDS, DEVICE_INPUTS, PAGES, Feeds, packed_feeds
from nestvec.backends.cuda.layout.cost import DeviceCost
from nestvec.backends.cuda.layout.graph_adapter import OutputSlice
from nestvec.backends.cuda.layout.shapes import Shape, bucket_for, buckets, exact_shape
from nestvec.backends.cuda.session import SIZES, Tensor
from nestvec.engine.types import Batch, FloatArray, Layout, RawOutput
from nestvec.errors import FormatError

HIDDEN = "hidden"
POOLED = "pooled"
HALF = "pooled_half"
# Inputs with a value for each token, for each input, and for each cell of the padded view.
OF_TOKENS: Final = frozenset({"ids", "positions", "types", "pool_owners", "pool_weights"})
OF_INPUTS: Final = frozenset({"past_lengths", "pool_index", "pool_rows", "pool_scales"})
OF_CELLS: Final = frozenset({"token_offset", "gather", "pool_gather"})


@dataclass(frozen=True, slots=True)
class PackedAdapter:
    """The `GraphAdapter` of graphs that Nestvec exports for devices: packed arrays, pooling in the graph.

    Attributes:
        hidden_size: H.
        pooling: How the graph pools; "" where it does not.
        layers: Number of layers to choose from; 0 where all of them always run.
        page: Tokens, heads and head width of a page of keys; zeros where the graph has no pages.
        reads_offsets: Whether a kernel reads the values of `token_offset`; such a kernel also waits for the host.
        is_padded: Whether memory grows with B times the longest input.
        widths: Number of columns of each output.
        page_bytes: Bytes of a page of keys and of one of values; 0 where the graph has no pages.
        gives_tokens: Always True.
    """

    hidden_size: int
    pooling: str
    layers: int
    page: tuple[int, int, int]
    reads_offsets: bool
    is_padded: bool
    widths: Mapping[str, int]
    page_bytes: int = 0
    gives_tokens: bool = True

    @classmethod
    def of(
        cls,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        max_tokens: int,
    ) -> Self:
        """Read what a graph says of itself in its metadata.

        Raises:
            FormatError: It is not a graph for a device.
        """
        del max_tokens
        if unknown := set(inputs) - DEVICE_INPUTS:
            raise FormatError(f"inputs nothing can feed: {', '.join(sorted(unknown))}")
        width = outputs[HIDDEN].shape[-1] if HIDDEN in outputs else None
        if width is None:
            raise FormatError(f"not a graph for a device: no output '{HIDDEN}' of a fixed width")
        tokens, heads, size = (int(n) for n in metadata.get("nestvec.pages", "0,0,0").split(","))
        page_bytes = sum(
            tokens * heads * size * SIZES[inputs[name].dtype] for name in PAGES if name in inputs
        )
        return cls(
            hidden_size=width,
            pooling=metadata.get("nestvec.pooling", "") if POOLED in outputs else "",
            layers=int(metadata.get("nestvec.device_layers", "0")),
            page=(tokens, heads, size),
            reads_offsets=metadata.get("nestvec.reads_offsets") == "1",
            is_padded=metadata.get("nestvec.is_padded") == "1",
            widths={name: output.shape[-1] or width for name, output in outputs.items()},
            page_bytes=page_bytes,
        )

    @property
    def waits_for_host(self) -> bool:
        """Whether a kernel reads `token_offset` on the host, so that no run can be captured."""
        return self.reads_offsets

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs: token states, and vectors in float32 and float16 where the graph pools."""
        return (HIDDEN, POOLED, HALF) if self.pooling else (HIDDEN,)

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch as `DeviceCost` does."""
        return DeviceCost(self.hidden_size, self.is_padded)(lengths)

    def is_copied(self, name: str) -> bool:
        """Return False for pages, which are the device's own, and for offsets of which kernels read the shape only."""
        return name not in PAGES and (name != "token_offset" or self.reads_offsets)

    def input_shape(self, name: str, shape: Shape, pages: int) -> tuple[int, ...]:
        """Return an input's sizes: by tokens (T,), by inputs (B,), by cells (B, S), or by pages."""
        if name in PAGES:
            return (max(1, pages), *self.page)
        if name in OF_TOKENS:
            return (shape.tokens,)
        if name in OF_INPUTS:
            return (shape.inputs,)
        if name in OF_CELLS:
            return shape.inputs, shape.row_length
        return {
            "cumulative_lengths": (shape.inputs + 1,),
            "row_places": (shape.row_length,),
            "block_table": (shape.inputs, max(1, -(-shape.longest // max(1, self.page[0])))),
            BOUNDS: (2,),
        }[name]

    def output_shape(self, name: str, shape: Shape) -> tuple[int, ...]:
        """Return an output's sizes: (T, width) for token states, (B, width) for vectors."""
        rows = shape.tokens if name.startswith(HIDDEN) else shape.inputs
        return rows, self.widths.get(name, self.hidden_size)

    def capture_shapes(self, max_tokens: int, longest: int) -> list[Shape]:
        """Return shapes of powers of two tokens, then of smaller steps."""
        return buckets(max_tokens, longest)

    def captured_shape(self, lengths: NDArray[np.int64], shapes: Iterable[Shape]) -> Shape | None:
        """Return the smallest captured shape that has room for a batch and its padding; None where none has."""
        return bucket_for(lengths, shapes)

    def uncaptured_shape(self, lengths: NDArray[np.int64]) -> Shape:
        """Return the batch's own shape, without any padding."""
        return exact_shape(lengths)

    def max_pages(self, shape: Shape) -> int:
        """Return the most pages of any batch of a shape, the last page of each input being partly empty."""
        return shape.inputs + shape.tokens // max(1, self.page[0])

    def feeds(self, batch: Batch, shape: Shape) -> Feeds:
        """Return the packed arrays of a batch, padded to the shape."""
        return packed_feeds(batch, shape, self.pooling, self.page[0])

    def dummy_feeds(self, shape: Shape) -> Feeds:
        """Return feeds of inputs as long as the shape allows, all of token 0."""
        starts = np.arange(shape.inputs) * shape.longest
        lengths = np.clip(shape.tokens - starts, 0, shape.longest).astype(np.int64)
        zeros = np.zeros(shape.tokens, np.int64)
        arrays = {"ids": zeros, "types": zeros}
        return self.feeds(Batch(arrays, lengths[lengths > 0], Layout.PACKED), shape)

    def output_slice(self, batch: Batch, shape: Shape, layer: int) -> OutputSlice:
        """Return the leading columns of the vectors where the batch wants vectors only, else all token states."""
        del shape
        suffix = f"_{layer}" if layer else ""
        if not self._pools(batch):
            return OutputSlice(HIDDEN + suffix, int(batch.lengths.sum()), self.hidden_size)
        name = HALF if batch.is_half else POOLED
        columns = min(batch.columns or self.hidden_size, self.hidden_size)
        return OutputSlice(name + suffix, len(batch.lengths), columns)

    def raw_output(self, batch: Batch, shape: Shape, values: FloatArray) -> RawOutput:
        """Return the copied rows as vectors or as token states, whichever `output_slice` asked for."""
        del shape
        return RawOutput(pooled=values) if self._pools(batch) else RawOutput(hidden=values)

    def _pools(self, batch: Batch) -> bool:
        """Return whether the batch wants vectors only, and the graph gives any."""
        return batch.is_pooled and bool(self.pooling)
