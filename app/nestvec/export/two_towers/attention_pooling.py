"""The pooling of SigLIP's towers of pictures: a learned query attends to all patches of a picture.

Source: Set Transformer (arXiv:1810.00825); tensor names as in transformers' modeling_siglip.py and modeling_siglip2.py.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nestvec.export.graph.types import Float32Array
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.two_towers.layers import TowerBuilder

VISION: Final = "vision_model."


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
    scaled = (query / np.sqrt(width // heads)).astype(np.float32).reshape(heads, -1, 1)
    key, value = (
        Linear(f"pool.{part}", merged[start : start + width].T, biases[start : start + width])
        for part, start in (("key", width), ("value", 2 * width))
    )
    return PoolingLayers(
        scaled, key, value, builder.linear("head.attention.out_proj", width, width)
    )
