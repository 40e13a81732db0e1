"""What graphs take: packed arrays, on CPU or on a device, or the usual padded ones, packed by the graph itself."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from onnx import TensorProto

from nestvec.export.graph.builder import GraphBuilder

# Added to scores of padding before softmax: exp of it is 0, and unlike -infinity it makes no NaN of an empty row.
MASKED: Final = -1e9


class DeviceRoute(StrEnum):
    """Which of CUDA's packed attentions a graph takes."""

    # PagedAttention where it saves work or is the only one (turned heads, shared keys, causal, bfloat16).
    PAGED = "paged"
    # PackedMultiHeadAttention everywhere: turned and spread before it, and masked by a bias.
    PACKED = "packed"


@dataclass(frozen=True, slots=True)
class DeviceInputs:
    """Values of what a device graph is told beside; see `app/nestvec/backends/cuda/arrays.py`.

    Attributes:
        route: Which attention.
        cumulative_lengths: (B + 1,), int32, from 0 to T.
        token_offset: (B, S), int32: cells of tokens, then those of padding; only its shape is read by fused kernels.
        places: (S,), int64: 0 … S-1.
        past_lengths: (B,), int32: zeros.
        block_table: (B, P), int32: pages of each input.
        bounds: (2,), int32, in the host's memory: the longest input, twice.
    """

    route: DeviceRoute
    cumulative_lengths: str
    token_offset: str
    places: str
    past_lengths: str
    block_table: str
    bounds: str

    @classmethod
    def declare(cls, graph: GraphBuilder, route: DeviceRoute) -> "DeviceInputs":
        """Declare them; those that no node takes are left out of the file."""
        return cls(
            route=route,
            cumulative_lengths=graph.input("cumulative_lengths", "int32", ("B1",)),
            token_offset=graph.input("token_offset", "int32", ("B", "S")),
            places=graph.input("row_places", "int64", ("S",)),
            past_lengths=graph.input("past_lengths", "int32", ("B",)),
            block_table=graph.input("block_table", "int32", ("B", "P")),
            bounds=graph.input("bounds", "int32", (2,)),
        )


@dataclass(frozen=True, slots=True)
class PackedInputs:
    """Values of a packed graph's inputs; see `app/nestvec/engine/core/collate.py` for what they hold.

    Attributes:
        ids: (T,), int64.
        positions: (T,), int64, from 0 in each text.
        gather: (B, S), int64, into 0 … T-1.
        scatter: (T,), int64, into 0 … B*S-1.
        lengths: (B,), int32.
        has_equal_lengths: (), bool; None where the graph does not ask.
        has_short_rows: (), bool: whether S is short enough for plain attention; None where the graph does not ask.
        mask: (B, 1, 1, S), float32: 0 for tokens, `MASKED` for padding.
        types: (T,), int64: 1 for tokens of a pair's second text; None where the graph takes single texts.
        layers: (), int64: how many layers to run; None where the graph runs all.
        device: What a device graph is told beside; None for CPU.
    """

    ids: str
    positions: str
    gather: str
    scatter: str
    lengths: str
    has_equal_lengths: str | None
    has_short_rows: str | None
    mask: str
    types: str | None = None
    layers: str | None = None
    device: DeviceInputs | None = None


def packed_inputs(
    graph: GraphBuilder,
    *,
    asks_equal: bool,
    asks_short: bool,
    asks_types: bool = False,
    asks_layers: bool = False,
    device_route: DeviceRoute | None = None,
) -> PackedInputs:
    """Declare the inputs of a packed graph."""
    gather = graph.input("gather", "int64", ("B", "S"))
    lengths = graph.input("lengths", "int32", ("B",))
    return PackedInputs(
        ids=graph.input("ids", "int64", ("T",)),
        positions=graph.input("positions", "int64", ("T",)),
        gather=gather,
        scatter=graph.input("scatter", "int64", ("T",)),
        lengths=lengths,
        has_equal_lengths=graph.input("has_equal_lengths", "bool", ()) if asks_equal else None,
        has_short_rows=graph.input("has_short_rows", "bool", ()) if asks_short else None,
        mask=_mask(graph, graph.op("Shape", gather, start=1, end=2), lengths),
        types=graph.input("types", "int64", ("T",)) if asks_types else None,
        layers=graph.input("layers", "int64", ()) if asks_layers else None,
        device=None if device_route is None else DeviceInputs.declare(graph, device_route),
    )


def padded_inputs(graph: GraphBuilder, *, asks_types: bool = False) -> PackedInputs:
    """Declare the names that other programs feed, and pack in the graph: padding is never computed.

    Unless types are asked for, `token_type_ids` are taken and ignored: one text an input is always type 0. Padding must
    be on the right.
    """
    ids = graph.input("input_ids", "int64", ("B", "S"))
    attends = graph.input("attention_mask", "int64", ("B", "S"))
    kinds = graph.input("token_type_ids", "int64", ("B", "S"))
    flat = graph.weight("flat", np.array([-1], np.int64))
    longest = graph.op("Shape", ids, start=1, end=2)
    scatter = graph.op("Reshape", graph.op("NonZero", graph.op("Reshape", attends, flat)), flat)
    lengths = graph.op(
        "ReduceSum", attends, graph.weight("last", np.array([-1], np.int64)), keepdims=0
    )
    # Token number in packed order at each cell; padding points at the token before it, which is masked.
    order = graph.op(
        "CumSum", graph.op("Reshape", attends, flat), graph.weight("axis_0", np.array(0, np.int64))
    )
    one = graph.weight("one", np.array(1, np.int64))
    zero = graph.weight("zero", np.array(0, np.int64))
    numbers = graph.op("Max", graph.op("Sub", order, one), zero)
    return PackedInputs(
        ids=graph.op("Gather", graph.op("Reshape", ids, flat), scatter, axis=0),
        positions=graph.op("Mod", scatter, longest),
        gather=graph.op("Reshape", numbers, graph.op("Shape", ids)),
        scatter=scatter,
        lengths=graph.op("Cast", lengths, to=TensorProto.INT32),
        has_equal_lengths=None,
        has_short_rows=None,
        mask=_mask(graph, longest, lengths),
        types=(
            graph.op("Gather", graph.op("Reshape", kinds, flat), scatter, axis=0)
            if asks_types
            else None
        ),
    )


def unpacked(graph: GraphBuilder, states: str, inputs: PackedInputs, hidden_size: int) -> str:
    """Packed states (T, H) to (B, S, H), zeros at padding."""
    shape = graph.op("Shape", inputs.gather)
    cells = graph.op("ReduceProd", shape, keepdims=1)
    width = graph.weight("hidden_size", np.array([hidden_size], np.int64))
    empty = graph.op("ConstantOfShape", graph.op("Concat", cells, width, axis=0))
    last = graph.weight("last", np.array([-1], np.int64))
    places = graph.op("Unsqueeze", inputs.scatter, last)
    filled = graph.op("ScatterND", empty, places, states)
    return graph.op("Reshape", filled, graph.op("Concat", shape, width, axis=0))


def _mask(graph: GraphBuilder, longest: str, lengths: str) -> str:
    """(B, 1, 1, S) from S (1,) and lengths (B,)."""
    zero = graph.weight("zero", np.array(0, np.int64))
    one = graph.weight("one", np.array(1, np.int64))
    columns = graph.op("Range", zero, graph.op("Squeeze", longest), one)
    last = graph.weight("last", np.array([-1], np.int64))
    rows = graph.op("Unsqueeze", graph.op("Cast", lengths, to=TensorProto.INT64), last)
    masked = graph.op(
        "Where",
        graph.op("Less", columns, rows),
        graph.weight("open", np.array(0, np.float32)),
        graph.weight("masked", np.array(MASKED, np.float32)),
    )
    return graph.op("Unsqueeze", masked, graph.weight("middle", np.array([1, 2], np.int64)))
