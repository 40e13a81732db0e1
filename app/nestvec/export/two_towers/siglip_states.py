"""States of a SigLIP tower of pictures, patch by patch, for models that read them among the tokens of a text.

Source: SigLIP (arXiv:2303.15343); tensor names as in transformers' modeling_siglip.py.
"""

import numpy as np

from nestvec.export.graph.types import Float32Array
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.two_towers.config import VisionSizes
from nestvec.export.two_towers.layers import TowerBuilder
from nestvec.export.two_towers.patches import CHANNELS, reshaped
from nestvec.export.two_towers.picture_graph import PixelScale


def siglip_states(
    context: BuildContext,
    sizes: VisionSizes,
    pixels: str,
    scale: PixelScale,
    *,
    prefix: str,
    merge: int = 1,
) -> str:
    """Add the tower without its head: patches [N, p * p * 3], bytes, to normed states [N, H].

    Args:
        context: The graph in the making; its inputs have a sequence for each square picture.
        sizes: The tower's sizes.
        pixels: The patches of whole pictures, N a multiple of their number; colours last.
        scale: How bytes become what the model was trained on.
        prefix: What stands before the names of the tower's tensors.
        merge: So many rows and columns of patches stand one behind the other, block by block, in the order of rows; 1
            for patches in the order of rows.
    """
    graph, weights = context.graph, context.weights
    width, patch, side = sizes.hidden_size, sizes.patch_size, sizes.side_patches
    builder = TowerBuilder(context, prefix, sizes)
    values = CHANNELS * patch**2
    scaled = scale.add_to(graph, reshaped(graph, pixels, "colours", -1, CHANNELS))
    flat = reshaped(graph, scaled, "patch_values", -1, values)
    name = f"{prefix}embeddings.patch_embedding"
    kernel = weights.get(f"{name}.weight", (width, CHANNELS, patch, patch))
    bias = weights.get(f"{name}.bias", (width,))
    layer = Linear("patches", kernel.transpose(2, 3, 1, 0).reshape(values, width), bias)
    (embedded,) = context.arithmetic.apply(graph, flat, [layer])
    table = weights.get(f"{prefix}embeddings.position_embedding.weight", (side**2, width))
    places = graph.weight("places", _by_blocks(table, side, merge))
    by_picture = reshaped(graph, embedded, "pictures", -1, side**2, width)
    placed = reshaped(graph, graph.op("Add", by_picture, places), "tokens", -1, width)
    return builder.norm(builder.stack(placed)[-1], "post_layernorm")


def _by_blocks(table: Float32Array, side: int, merge: int) -> Float32Array:
    """Put a table of positions, [side², H], into the order of patches that lie in blocks."""
    blocks = side // merge
    ordered = table.reshape(blocks, merge, blocks, merge, -1).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(ordered).reshape(table.shape)
