"""Graph inputs: packed arrays, for CPU or for a device, or the usual padded ones, which the graph packs by itself."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from onnx import TensorProto

from nestvec.export.graph.builder import GraphBuilder

# Added to scores of padding before softmax: exp of it is 0, and unlike -infinity it makes no NaN of an empty row.
MASKED_SCORE: Final = -1e9
# Longer inputs take attention in blocks. Measured (Zen 4, 12 heads of 64, windows of 129): blocks are as fast as the
# whole matrix at 192 tokens, twice as fast at 310.
LONG_TOKENS: Final = 192
# Longer inputs whose attention has a bias of its own loop over their queries. Measured (Zen 4, biases of T5, MPNet and
# ALiBi, 12 heads of 64): level from 300 to 512 tokens, 1.5 times as fast at 1,024 and 2,048.
LOOPED_TOKENS: Final = 512


class DeviceAttention(StrEnum):
    """Which of ONNX Runtime's packed attention operators a CUDA graph uses."""

    # PagedAttention where it saves work or is the only one that can: rotary embeddings, grouped-query attention,
    # causal attention, bfloat16.
    PAGED = "paged"
    # PackedMultiHeadAttention everywhere: heads are rotated and repeated before it, and masked by a bias.
    PACKED = "packed"


@dataclass(frozen=True, slots=True)
class DeviceInputs:
    """Names of the further inputs of a device graph; `backends/cuda/layout/arrays.py` computes what is fed.

    Attributes:
        attention: Which attention operator the graph uses.
        cumulative_lengths: [B + 1], int32, from 0 to T.
        token_offset: [B, S], int32: cells of tokens, then those of padding; fused kernels read its shape only.
        row_positions: [S], int64: 0 … S-1.
        past_lengths: [B], int32: zeros, as there is no key-value cache of earlier tokens.
        block_table: [B, P], int32: pages of each input.
        bounds: [2], int32, in the host's memory: the longest input in tokens, as query and as key length.
    """

    attention: DeviceAttention
    cumulative_lengths: str
    token_offset: str
    row_positions: str
    past_lengths: str
    block_table: str
    bounds: str

    @classmethod
    def declare(cls, graph: GraphBuilder, attention: DeviceAttention) -> "DeviceInputs":
        """Declare the inputs; those that no node uses are left out of the file."""
        return cls(
            attention=attention,
            cumulative_lengths=graph.input("cumulative_lengths", "int32", ("B1",)),
            token_offset=graph.input("token_offset", "int32", ("B", "S")),
            row_positions=graph.input("row_places", "int64", ("S",)),
            past_lengths=graph.input("past_lengths", "int32", ("B",)),
            block_table=graph.input("block_table", "int32", ("B", "P")),
            bounds=graph.input("bounds", "int32", (2,)),
        )


@dataclass(frozen=True, slots=True)
class BlockInputs:
    """Names of the inputs that lay windowed attention out in blocks of queries, with the keys that each block sees.

    `backends/attention_blocks.py` makes the values; N is the number of blocks of all inputs, Q the queries of a block,
    K the keys that it is given.

    Attributes:
        queries: [N, Q], int64, indices into 0 … T-1.
        keys: [N, K], int64, indices into 0 … T-1.
        mask: [N, 1, Q, K], float32: 0 for keys that a query attends to, else `MASKED_SCORE`.
        scatter: [T], int64, indices into 0 … N*Q-1.
    """

    queries: str
    keys: str
    mask: str
    scatter: str

    @classmethod
    def declare(cls, graph: GraphBuilder) -> "BlockInputs":
        """Declare the inputs, once however many layers ask for them."""
        return cls(
            queries=graph.ensure_input("block_queries", "int64", ("N", "Q")),
            keys=graph.ensure_input("block_keys", "int64", ("N", "K")),
            mask=graph.ensure_input("block_mask", "float32", ("N", 1, "Q", "K")),
            # One value where no blocks are used, so its length is not always T.
            scatter=graph.ensure_input("block_scatter", "int64", ("R",)),
        )


@dataclass(frozen=True, slots=True)
class PackedInputs:
    """Names of a packed graph's inputs and of values made of them; `engine/core/batching/collate.py` makes the values.

    T is the number of tokens of a batch, B that of its inputs, S the longest input's length in tokens.

    Attributes:
        ids: [T], int64.
        positions: [T], int64, from 0 in each text.
        gather: [B, S], int64, indices into 0 … T-1.
        scatter: [T], int64, indices into 0 … B*S-1.
        lengths: [B], int32.
        has_equal_lengths: Scalar bool; None for a graph without this input.
        has_short_rows: Scalar bool, whether S is short enough for plain attention; None for a graph without this input.
        padding_mask: [B, 1, 1, S], float32: 0 for tokens, `MASKED_SCORE` for padding.
        takes_blocks: Whether windowed attention may be laid out in blocks, as `BlockInputs` says.
        is_long: Scalar bool, whether inputs are longer than `LONG_TOKENS`, and of one length where `has_short_rows` is
            None; None for a graph without `has_equal_lengths`.
        is_looped: The same for `LOOPED_TOKENS`.
        sees_all: Scalar bool, whether each token is one that others may see; None for a graph without
            `has_equal_lengths`.
        token_types: [T], int64: 1 for tokens of a pair's second text; None for a graph that takes single texts.
        layer_count: Scalar int64, how many layers to run; None for a graph that always runs all.
        device: Further inputs of a device graph; None for CPU.
    """

    ids: str
    positions: str
    gather: str
    scatter: str
    lengths: str
    has_equal_lengths: str | None
    has_short_rows: str | None
    padding_mask: str
    takes_blocks: bool = False
    is_long: str | None = None
    is_looped: str | None = None
    sees_all: str | None = None
    token_types: str | None = None
    layer_count: str | None = None
    device: DeviceInputs | None = None

    @property
    def is_portable(self) -> bool:
        """Whether the graph is for other runtimes, which are fed packed arrays too."""
        return self.takes_blocks and self.has_equal_lengths is None


def packed_inputs(
    graph: GraphBuilder,
    *,
    takes_equal_lengths: bool,
    takes_short_rows: bool,
    takes_token_types: bool = False,
    takes_layer_count: bool = False,
    device_attention: DeviceAttention | None = None,
) -> PackedInputs:
    """Declare the inputs of a packed graph."""
    gather = graph.input("gather", "int64", ("B", "S"))
    lengths = graph.input("lengths", "int32", ("B",))
    has_equal_lengths = (
        graph.input("has_equal_lengths", "bool", ()) if takes_equal_lengths else None
    )
    max_length = graph.op("Shape", gather, start=1, end=2)
    ids = graph.input("ids", "int64", ("T",))
    is_long = is_looped = None
    if has_equal_lengths is not None:
        required = None if takes_short_rows else has_equal_lengths
        is_long = _is_longer(graph, max_length, LONG_TOKENS, required)
        is_looped = _is_longer(graph, max_length, LOOPED_TOKENS, required)
    return PackedInputs(
        ids=ids,
        positions=graph.input("positions", "int64", ("T",)),
        gather=gather,
        scatter=graph.input("scatter", "int64", ("T",)),
        lengths=lengths,
        has_equal_lengths=has_equal_lengths,
        has_short_rows=graph.input("has_short_rows", "bool", ()) if takes_short_rows else None,
        padding_mask=_padding_mask(graph, max_length, lengths),
        takes_blocks=device_attention is None,
        is_long=is_long,
        is_looped=is_looped,
        sees_all=None if has_equal_lengths is None else _sees_all(graph, ids, lengths),
        token_types=graph.input("types", "int64", ("T",)) if takes_token_types else None,
        layer_count=graph.input("layers", "int64", ()) if takes_layer_count else None,
        device=None if device_attention is None else DeviceInputs.declare(graph, device_attention),
    )


def padded_inputs(graph: GraphBuilder) -> PackedInputs:
    """Declare the inputs that other programs feed, and pack them in the graph: padding is never computed.

    `token_type_ids` are taken and ignored: a single text is always of type 0. Padding must be on the right.
    """
    ids = graph.input("input_ids", "int64", ("B", "S"))
    attention_mask = graph.input("attention_mask", "int64", ("B", "S"))
    graph.input("token_type_ids", "int64", ("B", "S"))
    flat = graph.weight("flat", np.array([-1], np.int64))
    max_length = graph.op("Shape", ids, start=1, end=2)
    is_token = graph.op("NonZero", graph.op("Reshape", attention_mask, flat))
    scatter = graph.op("Reshape", is_token, flat)
    lengths = graph.op(
        "ReduceSum", attention_mask, graph.weight("last", np.array([-1], np.int64)), keepdims=0
    )
    # Index in packed order of each cell's token; padding points at the token before it, which is masked.
    counts = graph.op(
        "CumSum",
        graph.op("Reshape", attention_mask, flat),
        graph.weight("axis_0", np.array(0, np.int64)),
    )
    one = graph.weight("one", np.array(1, np.int64))
    zero = graph.weight("zero", np.array(0, np.int64))
    token_indices = graph.op("Max", graph.op("Sub", counts, one), zero)
    return PackedInputs(
        ids=graph.op("Gather", graph.op("Reshape", ids, flat), scatter, axis=0),
        positions=graph.op("Mod", scatter, max_length),
        gather=graph.op("Reshape", token_indices, graph.op("Shape", ids)),
        scatter=scatter,
        lengths=graph.op("Cast", lengths, to=TensorProto.INT32),
        has_equal_lengths=None,
        has_short_rows=None,
        padding_mask=_padding_mask(graph, max_length, lengths),
    )


def unpacked(graph: GraphBuilder, states: str, inputs: PackedInputs, hidden_size: int) -> str:
    """Spread packed states [T, H] over [B, S, H], with zeros at padding."""
    shape = graph.op("Shape", inputs.gather)
    cells = graph.op("ReduceProd", shape, keepdims=1)
    width = graph.weight("hidden_size", np.array([hidden_size], np.int64))
    empty = graph.op("ConstantOfShape", graph.op("Concat", cells, width, axis=0))
    last = graph.weight("last", np.array([-1], np.int64))
    indices = graph.op("Unsqueeze", inputs.scatter, last)
    filled = graph.op("ScatterND", empty, indices, states)
    return graph.op("Reshape", filled, graph.op("Concat", shape, width, axis=0))


def _is_longer(
    graph: GraphBuilder, max_length: str, tokens: int, has_equal_lengths: str | None
) -> str:
    """Tell whether inputs are longer: by the longest, or, where inputs of one length are asked for, by each."""
    limit = graph.weight(f"longer_than_{tokens}", np.array(tokens, np.int64))
    is_longer = graph.op("Greater", graph.op("Squeeze", max_length), limit)
    return is_longer if has_equal_lengths is None else graph.op("And", is_longer, has_equal_lengths)


def _sees_all(graph: GraphBuilder, ids: str, lengths: str) -> str:
    """Tell whether no token is hidden from the others, as expansions of late interaction are."""
    seen = graph.op("ReduceSum", graph.op("Cast", lengths, to=TensorProto.INT64), keepdims=0)
    return graph.op("Equal", seen, graph.op("Squeeze", graph.op("Shape", ids)))


def _padding_mask(graph: GraphBuilder, max_length: str, lengths: str) -> str:
    """Make [B, 1, 1, S], 0 for tokens and `MASKED_SCORE` for padding, of S [1] and lengths [B]."""
    zero = graph.weight("zero", np.array(0, np.int64))
    one = graph.weight("one", np.array(1, np.int64))
    columns = graph.op("Range", zero, graph.op("Squeeze", max_length), one)
    last = graph.weight("last", np.array([-1], np.int64))
    rows = graph.op("Unsqueeze", graph.op("Cast", lengths, to=TensorProto.INT64), last)
    mask = graph.op(
        "Where",
        graph.op("Less", columns, rows),
        graph.weight("open", np.array(0, np.float32)),
        graph.weight("masked", np.array(MASKED_SCORE, np.float32)),
    )
    return graph.op("Unsqueeze", mask, graph.weight("middle", np.array([1, 2], np.int64)))
