"""Which tokens a token attends to, by their distance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import TensorProto

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import LONG_TOKENS, MASKED_SCORE, BlockInputs, PackedInputs

# Queries of a step where attention is a loop over them: their scores stay in the L2 cache up to some thousand keys.
LOOP_QUERIES: Final = 64
# Key of a graph's metadata for the window that is laid out in blocks, and whether it is causal, as "65,0".
WINDOW: Final = "nestvec.window"
# Wider windows take other ways: their blocks would hold the keys of an input many times.
MAX_BLOCK_WINDOW: Final = 1024
# ONNX Runtime's GroupQueryAttention takes only heads whose width is a multiple of this.
GROUPED_WIDTH_STEP: Final = 8


@dataclass(frozen=True, slots=True)
class GroupedLengths:
    """What GroupQueryAttention takes of the rows' lengths, which all layers share.

    Attributes:
        last: Position of each row's last token, [B], int32: padding behind a row is never seen by its tokens.
        total: S, a scalar, int32.
    """

    last: str
    total: str


@dataclass(frozen=True, slots=True)
class AttentionMask:
    """Which tokens a layer's tokens attend to.

    Attributes:
        is_causal: Each token attends to itself and those before it only.
        window: Each token attends to tokens at most `window` - 1 away; 0 for no limit.
        bias: What is added to scores for it, [1, 1, S, S]; None where all attend to all. Where another way of computing
            attention is taken, [1, 1, 1, 1].
        blocks: Lay the window out in blocks; None where it is not.
        is_open: Scalar bool, whether the longest input is no longer than the window, which then hides nothing; None
            where nothing asks.
        grouped: Given where GroupQueryAttention can compute it.
    """

    is_causal: bool = False
    window: int = 0
    bias: str | None = None
    blocks: BlockInputs | None = None
    is_open: str | None = None
    grouped: GroupedLengths | None = None


FULL_ATTENTION: Final = AttentionMask()


def attention_mask(
    graph: GraphBuilder, inputs: PackedInputs, *, is_causal: bool, window: int, head_width: int
) -> AttentionMask:
    """Make a mask and add its bias to a graph; layers may share it."""
    if not is_causal and not window:
        return FULL_ATTENTION
    blocks = _blocks(graph, inputs, is_causal=is_causal, window=window)
    is_for_runtime = inputs.has_equal_lengths is not None
    grouped = None
    if is_causal and is_for_runtime and head_width % GROUPED_WIDTH_STEP == 0:
        grouped = _grouped_lengths(graph, inputs)
    if grouped is not None and inputs.has_short_rows is not None:
        has_other_way = inputs.sees_all
    elif grouped is not None or blocks is not None:
        has_other_way = inputs.is_long
    else:
        has_other_way = inputs.is_looped
    bias = unless(
        graph,
        has_other_way,
        lambda: mask_bias(graph, key_distances(graph, inputs), is_causal=is_causal, window=window),
    )
    is_open = None
    if blocks is not None and is_for_runtime and window > LONG_TOKENS:
        is_open = _is_open(graph, inputs, window)
    return AttentionMask(is_causal, window, bias, blocks, is_open, grouped)


def _blocks(
    graph: GraphBuilder, inputs: PackedInputs, *, is_causal: bool, window: int
) -> BlockInputs | None:
    """Declare the inputs of a window in blocks, and note the window; None where it has none."""
    if not inputs.takes_blocks or not 0 < window <= MAX_BLOCK_WINDOW:
        return None
    layout = f"{window},{int(is_causal)}"
    if graph.metadata.setdefault(WINDOW, layout) != layout:
        return None  # one layout is fed
    return BlockInputs.declare(graph)


def _grouped_lengths(graph: GraphBuilder, inputs: PackedInputs) -> GroupedLengths:
    """Add the lengths that GroupQueryAttention takes, once for all layers."""
    longest = graph.op("Shape", inputs.gather, start=1, end=2)
    total = graph.op("Cast", longest, to=TensorProto.INT32)
    one = graph.weight("one_int32", np.array([1], np.int32))
    rows = graph.op("Shape", inputs.gather, start=0, end=1)
    last = graph.op("Expand", graph.op("Sub", total, one), rows)
    return GroupedLengths(last, graph.op("Squeeze", total))


def _is_open(graph: GraphBuilder, inputs: PackedInputs, window: int) -> str:
    """Tell whether the longest input is no longer than the window."""
    longest = graph.op("Squeeze", graph.op("Shape", inputs.gather, start=1, end=2))
    limit = graph.weight(f"window_of_{window}", np.array(window, np.int64))
    return graph.op("LessOrEqual", longest, limit)


def unless(graph: GraphBuilder, condition: str | None, build: Callable[[], str]) -> str:
    """Add a bias [1, heads or 1, S, S] that is not computed under a condition; there it is [1, 1, 1, 1].

    Args:
        graph: Takes the nodes.
        condition: A bool scalar; None computes it always.
        build: Adds the nodes of the bias and returns their value.
    """
    if condition is None:
        return build()
    nothing = graph.weight("no_bias", np.zeros((1, 1, 1, 1), np.float32))
    shape = (1, "heads", "queries", "keys")
    return graph.if_else(condition, lambda: graph.op("Identity", nothing), build, shape)


def mask_rows(graph: GraphBuilder, inputs: PackedInputs, mask: AttentionMask, first: str) -> str:
    """Add a mask's bias for `LOOP_QUERIES` queries from position `first` (an int64 scalar) on: [1, 1, Q, S]."""
    distances = row_distances(graph, inputs, first)
    return mask_bias(graph, distances, is_causal=mask.is_causal, window=mask.window)


def mask_bias(graph: GraphBuilder, distances: str, *, is_causal: bool, window: int) -> str:
    """Add what a mask adds to scores.

    Args:
        graph: Takes the nodes.
        distances: How far each key is ahead of each query, [Q, S], int64.
        is_causal: As in `AttentionMask`.
        window: As in `AttentionMask`.

    Returns:
        [1, 1, Q, S], float32, `MASKED_SCORE` for keys that a query does not attend to.
    """
    zero = graph.weight("zero", np.array(0, np.int64))
    conditions = [graph.op("Greater", distances, zero)] if is_causal else []
    if window:
        max_distance = graph.weight(f"window_{window}", np.array(window - 1, np.int64))
        conditions.append(graph.op("Greater", graph.op("Abs", distances), max_distance))
    bias = graph.op(
        "Where",
        conditions[0] if len(conditions) == 1 else graph.op("Or", *conditions),
        graph.weight("masked", np.array(MASKED_SCORE, np.float32)),
        graph.weight("open", np.array(0, np.float32)),
    )
    return graph.op("Unsqueeze", bias, graph.weight("leading", np.array([0, 1], np.int64)))


def key_distances(graph: GraphBuilder, inputs: PackedInputs) -> str:
    """Add how far each key is ahead of each query: [S, S], int64, negative for keys behind it."""
    column = graph.weight("column", np.array([1], np.int64))
    positions = _positions(graph, inputs)
    return graph.op("Sub", positions, graph.op("Unsqueeze", positions, column))


def row_distances(graph: GraphBuilder, inputs: PackedInputs, first: str) -> str:
    """Add how far each key is ahead of `LOOP_QUERIES` queries from position `first` on: [Q, S], int64."""
    offsets = np.arange(LOOP_QUERIES, dtype=np.int64)[:, None]
    queries = graph.op("Add", graph.weight("loop_offsets", offsets), first)
    return graph.op("Sub", _positions(graph, inputs), queries)


def _positions(graph: GraphBuilder, inputs: PackedInputs) -> str:
    """Add 0 … S-1, [S], int64."""
    if inputs.device is not None:
        return inputs.device.row_positions
    zero = graph.weight("zero", np.array(0, np.int64))
    one = graph.weight("one", np.array(1, np.int64))
    max_length = graph.op("Squeeze", graph.op("Shape", inputs.gather, start=1, end=2))
    return graph.op("Range", zero, max_length, one)
