"""Pooling at the end of a device graph, so that vectors leave the device and not token states.

Sums are a product with a [B, T] matrix that is zero except for each input's own tokens, accumulated in float32 by
cuBLAS. Its weights are powers of two, which half floats hold exactly and which keep sums within their range; the rest
of a mean's 1 / n follows in float32. `backends/cuda/layout/pooling_arrays.py` computes what is fed, and
`engine/vectors/pooling.py` is the reference.
"""

from typing import Final

import numpy as np
from onnx import TensorProto

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import PackedInputs

SUMMING_POOLINGS: Final = ("mean", "mean_sqrt_len", "weighted_mean")
SELECTING_POOLINGS: Final = ("cls", "last_token")
DEVICE_POOLINGS: Final = (*SUMMING_POOLINGS, *SELECTING_POOLINGS, "max")


def device_pooled(graph: GraphBuilder, state: str, pooling: str, inputs: PackedInputs) -> str:
    """Add pooling of token states [T, W] to vectors [B, W], float32.

    Args:
        graph: Takes the nodes.
        state: [T, W], in the graph's dtype.
        pooling: One of `DEVICE_POOLINGS`.
        inputs: The graph's inputs.

    Raises:
        ValueError: `pooling` is something else.
    """
    if pooling in SELECTING_POOLINGS:
        index = graph.ensure_input("pool_index", "int64", ("B",))
        return _float32(graph, graph.op("Gather", state, index, axis=0))
    if pooling == "max":
        # Tokens that do not count, and padding, point at a token that does.
        rows = graph.ensure_input("pool_gather", "int64", ("B", "S"))
        middle = graph.weight("middle_axis", np.array([1], np.int64))
        padded = graph.op("Gather", state, rows, axis=0)
        # CUDA's ReduceMax needs cuDNN, TopK does not.
        first = graph.weight("first_one", np.array([1], np.int64))
        greatest, _ = graph.op_outputs("TopK", 2, padded, first, axis=1)
        return _float32(graph, graph.op("Squeeze", greatest, middle))
    if pooling not in SUMMING_POOLINGS:
        raise ValueError(f"no pooling '{pooling}' on a device")
    return _weighted_sum(graph, state)


def _weighted_sum(graph: GraphBuilder, state: str) -> str:
    """Add the weighted sum of each input's tokens, [B, W], float32."""
    column = graph.weight("column", np.array([1], np.int64))
    rows = graph.ensure_input("pool_rows", "int64", ("B",))
    owners = graph.ensure_input("pool_owners", "int64", ("T",))
    weights = graph.ensure_input("pool_weights", "float32", ("T",))
    scales = graph.ensure_input("pool_scales", "float32", ("B",))
    is_own_token = graph.op("Equal", graph.op("Unsqueeze", rows, column), owners)
    matrix = graph.op(
        "Where",
        is_own_token,
        graph.op("Cast", weights, to=graph.onnx_float_type),
        graph.weight("nothing", np.array(0, np.float32)),
    )
    sums = _float32(graph, graph.op("MatMul", matrix, state))
    return graph.op("Mul", sums, graph.op("Unsqueeze", scales, column))


def _float32(graph: GraphBuilder, value: str) -> str:
    if graph.onnx_float_type == TensorProto.FLOAT:
        return value
    return graph.op("Cast", value, to=TensorProto.FLOAT)
