"""Pooling by attention: one learned query, the same for every picture, attends to all of a picture's tokens.

Source: Set Transformer (arXiv:1810.00825), as SigLIP and nomic-embed-vision have it; tensor names as in transformers'
modeling_siglip.py and modeling_siglip2.py.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.export.graph.types import Float32Array
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.two_towers.layers import TowerBuilder
from nestvec.export.two_towers.patches import ints, reshaped

VISION: Final = "vision_model."


def scaled_query(query: NDArray[Any], heads: int) -> Float32Array:
    """Split a projected query, [H], into heads, and scale it as scores are: [heads, d, 1], float32."""
    width = query.size // heads
    scaled: Float32Array = (query / np.sqrt(width)).astype(np.float32).reshape(heads, width, 1)
    return scaled


def attended_by_query(
    context: BuildContext, state: str, query: Float32Array, key: Linear, value: Linear, tokens: int
) -> str:
    """Let a query attend to the tokens of each picture; its projections are computed at export.

    Args:
        context: The graph in the making.
        state: [B * tokens, H].
        query: [heads, d, 1], scaled.
        key: [H, heads * d].
        value: [H, heads * d].
        tokens: Number of a picture's tokens.

    Returns:
        A value [B, heads * d].
    """
    graph = context.graph
    heads, head, _ = query.shape
    keys, values = (
        graph.op(
            "Transpose",
            reshaped(graph, part, "pool_heads", -1, tokens, heads, head),
            perm=[0, 2, 1, 3],
        )
        for part in context.arithmetic.apply(graph, state, [key, value])
    )
    # [B, heads, n, d] by [heads, d, 1]: the query is the same for all pictures.
    scores = graph.op("MatMul", keys, graph.weight("pool.query", query))
    mixed = graph.op("Mul", graph.op("Softmax", scores, axis=2), values)
    summed = graph.op("ReduceSum", mixed, ints(graph, "patches_axis", 2), keepdims=0)
    return reshaped(graph, summed, "pooled_rows", -1, heads * head)


@dataclass(frozen=True, slots=True)
class PoolingLayers:
    """What the pooling is made of.

    Attributes:
        query: The query of each head, [heads, d, 1], computed here, as it is the same for all pictures, and scaled.
        key: [H, H].
        value: [H, H].
        output: [H, H].
    """

    query: Float32Array
    key: Linear
    value: Linear
    output: Linear


def read_pooling(builder: TowerBuilder) -> PoolingLayers:
    """Read the pooling's layers.

    Raises:
        FormatError: A tensor is missing or of another shape.
    """
    sizes, weights = builder.sizes, builder.context.weights
    heads, width = sizes.num_attention_heads, sizes.hidden_size
    name = f"{VISION}head.attention"
    merged = weights.get(f"{name}.in_proj_weight", (3 * width, width))
    biases = weights.get(f"{name}.in_proj_bias", (3 * width,))
    probe = weights.get(f"{VISION}head.probe", (1, 1, width)).reshape(width)
    query = probe.astype(np.float64) @ merged[:width].T + biases[:width]
    scaled = scaled_query(query, heads)
    key, value = (
        Linear(f"pool.{part}", merged[start : start + width].T, biases[start : start + width])
        for part, start in (("key", width), ("value", 2 * width))
    )
    return PoolingLayers(
        scaled, key, value, builder.linear("head.attention.out_proj", width, width)
    )
