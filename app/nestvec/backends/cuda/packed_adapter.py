"""Our own graphs in a run of some shape; see `export/device_graph.py`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.arrays import BOUNDS, DEVICE_INPUTS, PAGES, Feeds, feeds
from nestvec.backends.cuda.cost import DeviceCost
from nestvec.backends.cuda.graph_adapter import Wanted
from nestvec.backends.cuda.session import Tensor
from nestvec.backends.cuda.shapes import Shape, bucket_for, buckets, exact_shape
from nestvec.engine.types import Batch, FloatArray, Layout, RawOutput
from nestvec.errors import FormatError

HIDDEN = "hidden"
POOLED = "pooled"
HALF = "pooled_half"


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
        if not self._pools(batch):
            return Wanted(HIDDEN + suffix, int(batch.lengths.sum()), self.hidden_size)
        name = HALF if batch.is_half else POOLED
        columns = min(batch.columns or self.hidden_size, self.hidden_size)
        return Wanted(name + suffix, len(batch.lengths), columns)

    def result(self, batch: Batch, shape: Shape, found: FloatArray) -> RawOutput:
        """See `Plan`."""
        del shape
        return RawOutput(pooled=found) if self._pools(batch) else RawOutput(hidden=found)

    def _pools(self, batch: Batch) -> bool:
        """Whether vectors are all that is wanted, and there are any."""
        return batch.is_pooled and bool(self.pooling)
