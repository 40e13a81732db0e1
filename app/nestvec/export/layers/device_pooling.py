"""Pooling at the end of a device graph, so that vectors leave it and not token states.

Sums are a product with a (B, T) matrix that is zero but for each input's own tokens, accumulated in float32 by
cuBLAS. Its weights are powers of two, which half floats hold exactly and which keep sums below what they hold; the
rest of a mean's 1 / n comes behind, in float32. See `backends/cuda/pooling_arrays.py`, which makes what is fed,
and `engine/vectors/pooling.py`, the reference.
"""

from typing import Final

import numpy as np
from onnx import TensorProto

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import PackedInputs

SUMMED: Final = ("mean", "mean_sqrt_len", "weighted_mean")
CHOSEN: Final = ("cls", "last_token")
DEVICE_POOLINGS: Final = (*SUMMED, *CHOSEN, "max")


def device_pooled(graph: GraphBuilder, state: str, pooling: str, inputs: PackedInputs) -> str:
    """Token states (T, W) to vectors (B, W), float32.

    Args:
        graph: What it is added to.
        state: In the graph's floats.
        pooling: One of `DEVICE_POOLINGS`.
        inputs: The graph's.

    Raises:
        ValueError: There is no such pooling here.
    """
    if pooling in CHOSEN:
        index = graph.shared_input("pool_index", "int64", ("B",))
        return _float32(graph, graph.op("Gather", state, index, axis=0))
    if pooling == "max":
        # Tokens that do not count, and padding, point at one that does.
        rows = graph.shared_input("pool_gather", "int64", ("B", "S"))
        middle = graph.weight("middle_axis", np.array([1], np.int64))
        spread = graph.op("Gather", state, rows, axis=0)
        return _float32(graph, graph.op("ReduceMax", spread, middle, keepdims=0))
    if pooling not in SUMMED:
        raise ValueError(f"no pooling '{pooling}' on a device")
    column = graph.weight("column", np.array([1], np.int64))
    rows = graph.shared_input("pool_rows", "int64", ("B",))
    owners = graph.shared_input("pool_owners", "int64", ("T",))
    weights = graph.shared_input("pool_weights", "float32", ("T",))
    scales = graph.shared_input("pool_scales", "float32", ("B",))
    is_own = graph.op("Equal", graph.op("Unsqueeze", rows, column), owners)
    own = graph.op(
        "Where",
        is_own,
        graph.op("Cast", weights, to=graph.float_type),
        graph.weight("nothing", np.array(0, np.float32)),
    )
    summed = _float32(graph, graph.op("MatMul", own, state))
    return graph.op("Mul", summed, graph.op("Unsqueeze", scales, column))


def _float32(graph: GraphBuilder, value: str) -> str:
    if graph.float_type == TensorProto.FLOAT:
        return value
    return graph.op("Cast", value, to=TensorProto.FLOAT)
