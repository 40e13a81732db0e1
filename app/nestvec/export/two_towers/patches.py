"""How towers of pictures begin: pixels cut into patches, a product for each, a class token before them."""

from typing import Final

import numpy as np

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.types import Float32Array
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.build_context import BuildContext

CHANNELS: Final = 3


def cut_patches(graph: GraphBuilder, pixels: str, image_size: int, patch_size: int) -> str:
    """Cut pictures [B, S, S, 3] into patches, [B * n, p, p, 3]; pixels beyond whole patches are left out."""
    side = image_size // patch_size
    if side * patch_size < image_size:
        used = ints(graph, "used", side * patch_size, side * patch_size)
        zero, axes = ints(graph, "none", 0, 0), ints(graph, "sides", 1, 2)
        pixels = graph.op("Slice", pixels, zero, used, axes)
    grid = reshaped(graph, pixels, "grid", -1, side, patch_size, side, patch_size, CHANNELS)
    rows = graph.op("Transpose", grid, perm=[0, 1, 3, 2, 4, 5])
    return reshaped(graph, rows, "patch", -1, patch_size, patch_size, CHANNELS)


def embed_patches(
    context: BuildContext, patches: str, kernel: Float32Array, bias: Float32Array
) -> str:
    """Make states of patches: a convolution whose windows do not overlap is a product.

    Args:
        context: The graph in the making.
        patches: [B * n, p, p, 3].
        kernel: [H, 3, p, p], as torch keeps a convolution's.
        bias: [H].

    Returns:
        A value [B * n, H].
    """
    width, _, patch, _ = kernel.shape
    values = CHANNELS * patch * patch
    layer = Linear("patches", kernel.transpose(2, 3, 1, 0).reshape(values, width), bias)
    flat = reshaped(context.graph, patches, "patch_values", -1, values)
    return context.arithmetic.apply(context.graph, flat, [layer])[0]


def behind_class_token(graph: GraphBuilder, state: str, token: Float32Array) -> str:
    """Put a class token, [H], before the patches of each picture, [B, n, H] to [B, n + 1, H]."""
    width = len(token)
    row = graph.weight("class_token", token.reshape(1, 1, width))
    pictures = graph.op("Shape", state, start=0, end=1)
    shape = graph.op("Concat", pictures, ints(graph, "token_shape", 1, width), axis=0)
    return graph.op("Concat", graph.op("Expand", row, shape), state, axis=1)


def class_states(graph: GraphBuilder, state: str, tokens: int, width: int) -> str:
    """Take the first token's state of each picture, [B * tokens, H] to [B, H]."""
    by_picture = reshaped(graph, state, "by_picture", -1, tokens, width)
    first = graph.op("Gather", by_picture, ints(graph, "first", 0), axis=1)
    return reshaped(graph, first, "class_tokens", -1, width)


def reshaped(graph: GraphBuilder, value: str, name: str, *shape: int) -> str:
    """Add a Reshape; the same name is the same shape."""
    return graph.op("Reshape", value, ints(graph, f"{name}_shape", *shape))


def ints(graph: GraphBuilder, name: str, *values: int) -> str:
    """Add integers to the weights."""
    return graph.weight(name, np.array(values, np.int64))
