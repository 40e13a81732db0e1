"""jina-clip's tower of pictures as a graph: pixels to vectors in the space of its texts'.

Source: EVA-02 (arXiv:2303.11331), as in `eva_model.py` of jinaai/jina-clip-implementation; tensor names as in the
published checkpoints.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from nestvec.export.layers.arithmetic import Linear, split_linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_spec import AttentionSpec
from nestvec.export.layers.blocks import activation, layer_norm
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.rotary_embedding import RotaryEmbedding
from nestvec.export.two_towers.attention_pooling import VISION
from nestvec.export.two_towers.grid_rotation import grid_places, grid_rotation, with_halves_paired
from nestvec.export.two_towers.jina_clip import (
    JinaVision,
    has_projections,
    projected_size,
    read_jina_vision,
)
from nestvec.export.two_towers.patches import (
    CHANNELS,
    behind_class_token,
    class_states,
    cut_patches,
    embed_patches,
    reshaped,
)
from nestvec.export.two_towers.picture_graph import PixelScale, begun_picture_graph

EPSILON: Final = 1e-6  # of all norms but those of MLPs without a gate, which have torch's default
PLAIN_MLP_EPSILON: Final = 1e-5


def export_jina_pictures(
    folder: Path,
    config: Mapping[str, Any],
    scale: PixelScale,
    path: Path,
    on_tensor: Callable[[int], None] | None = None,
) -> None:
    """Write the graph of pictures: `pixels` [B, S, S, 3], bytes, to `pooled` [B, D].

    Args:
        folder: Holds the weights of both towers.
        config: Content of its config.json.
        scale: How bytes become what the model was trained on.
        path: Where the graph goes; its weights go beside it.
        on_tensor: Called with 1 for each tensor that was read; None for nobody to tell.

    Raises:
        FormatError: Configuration and weights do not fit each other.
        OSError: The disk is full or read-only.
    """
    sizes, width = read_jina_vision(config), projected_size(config)
    name, side = "jina_pictures", sizes.image_size
    shape = ("B", side, side, CHANNELS)
    with begun_picture_graph(name, shape, folder, path, on_tensor) as (context, pixels):
        value = _EvaTower(context, sizes).add(pixels, scale)
        if has_projections(config):
            layer = context.linear("visual_projection", width, sizes.embed_dim)
            (value,) = context.arithmetic.apply(context.graph, value, [layer])
    context.graph.output(value, "pooled", ("B", width))
    context.graph.save(path)


@dataclass(frozen=True, slots=True)
class _EvaTower:
    """Adds the tower to a graph."""

    context: BuildContext
    sizes: JinaVision

    def add(self, pixels: str, scale: PixelScale) -> str:
        """Add all of it: [B, S, S, 3] to [B, E]."""
        context, sizes = self.context, self.sizes
        graph, width = context.graph, sizes.width
        patches = cut_patches(graph, pixels, sizes.image_size, sizes.patch_size)
        state = self._embedded(scale.add_to(graph, patches))
        rotary = None
        if sizes.trained_side:
            places = grid_places(sizes.side_patches, sizes.trained_side)
            rotary = grid_rotation(context, width // sizes.heads, places, places)
        layers = [
            partial(self._layer, name=f"blocks.{number}", rotary=rotary)
            for number in range(sizes.layers)
        ]
        last = context.stack(state, layers, width)[-1]
        # A norm of each token: that of the first is all that is asked for.
        token = self._norm(class_states(graph, last, sizes.tokens, width), "norm")
        if not sizes.has_head:
            return token
        head = self._linear("head", sizes.embed_dim, width, has_bias=sizes.has_bias)
        return context.arithmetic.apply(graph, token, [head])[0]

    def _embedded(self, patches: str) -> str:
        """Make token states [T, W] of patches, behind a class token."""
        graph, sizes, weights = self.context.graph, self.sizes, self.context.weights
        width, patch = sizes.width, sizes.patch_size
        name = f"{VISION}patch_embed.proj"
        kernel = weights.get(f"{name}.weight", (width, CHANNELS, patch, patch))
        bias = weights.get(f"{name}.bias", (width,))
        state = embed_patches(self.context, patches, kernel, bias)
        state = reshaped(graph, state, "pictures", -1, sizes.tokens - 1, width)
        token = weights.get(f"{VISION}cls_token", (1, 1, width)).reshape(width)
        state = behind_class_token(graph, state, token)
        places = weights.get(f"{VISION}pos_embed", (1, sizes.tokens, width))[0]
        state = graph.op("Add", state, graph.weight("places", places))
        return reshaped(graph, state, "tokens", -1, width)

    def _layer(self, state: str, name: str, rotary: RotaryEmbedding | None) -> str:
        attend = partial(self._attention, name=f"{name}.attn", rotary=rotary)
        state = self._added(state, attend, name, 1)
        return self._added(state, partial(self._mlp, name=f"{name}.mlp"), name, 2)

    def _added(self, state: str, part: Callable[[str], str], name: str, number: int) -> str:
        """Add what a part of a layer makes of a state to the state."""
        graph, norm = self.context.graph, f"{name}.norm{number}"
        is_behind = self.sizes.norms_behind
        value = self._norm(part(state), norm) if is_behind else part(self._norm(state, norm))
        if self.sizes.layer_scale:
            tensor = f"{name}.gamma_{number}"
            scale = self.context.weights.get(VISION + tensor, (self.sizes.width,))
            value = graph.op("Mul", value, graph.weight(tensor, scale))
        return graph.op("Add", state, value)

    def _attention(self, state: str, name: str, rotary: RotaryEmbedding | None) -> str:
        sizes = self.sizes
        query, key, value = self._projections(name)
        if rotary is not None:
            query, key = (with_halves_paired(layer, sizes.heads) for layer in (query, key))
        output = self._linear(f"{name}.proj", sizes.width, sizes.width)
        inner = None
        if sizes.has_inner_norms:
            inner = partial(self._norm, name=f"{name}.inner_attn_ln")
        spec = AttentionSpec(
            query, key, value, output, sizes.heads, rotary=rotary, output_norm=inner
        )
        return self_attention(self.context, state, spec)

    def _projections(self, name: str) -> list[Linear]:
        """Read queries, keys and values: one in three tensors where there are inner norms; keys have no bias."""
        sizes, weights = self.sizes, self.context.weights
        width, bias = sizes.width, np.zeros(3 * sizes.width, np.float32)
        if sizes.has_bias:
            for part, start in (("q_bias", 0), ("v_bias", 2 * width)):
                bias[start : start + width] = weights.get(f"{VISION}{name}.{part}", (width,))
        tensors = [f"{part}_proj" for part in "qkv"] if sizes.has_inner_norms else ["qkv"]
        rows = 3 * width // len(tensors)
        read = [weights.get(f"{VISION}{name}.{each}.weight", (rows, width)) for each in tensors]
        return split_linear(f"{name}.qkv", np.concatenate(read), bias, 3)

    def _mlp(self, state: str, name: str) -> str:
        """Add an MLP, [n, W] to [n, W]."""
        graph, sizes = self.context.graph, self.sizes
        inner, width = sizes.intermediate_size, sizes.width
        up = ("w1", "w2") if sizes.is_gated else ("fc1",)
        first = [self._linear(f"{name}.{part}", inner, width) for part in up]
        last = self._linear(f"{name}.{'w3' if sizes.is_gated else 'fc2'}", width, inner)
        projected = self.context.arithmetic.apply(graph, state, first)
        value = activation(graph, projected[0], "silu" if sizes.is_gated else "gelu")
        for factor in projected[1:]:
            value = graph.op("Mul", value, factor)
        if sizes.has_inner_norms:
            epsilon = EPSILON if sizes.is_gated else PLAIN_MLP_EPSILON
            value = self._norm(value, f"{name}.ffn_ln", inner, epsilon)
        return self.context.arithmetic.apply(graph, value, [last])[0]

    def _linear(self, name: str, rows: int, columns: int, *, has_bias: bool = True) -> Linear:
        return self.context.linear(name, rows, columns, prefix=VISION, has_bias=has_bias)

    def _norm(self, state: str, name: str, size: int = 0, epsilon: float = EPSILON) -> str:
        """Add a layer norm, of states where no size is said."""
        width = size or self.sizes.width
        scale = self.context.weights.get(f"{VISION}{name}.weight", (width,))
        bias = self.context.weights.get(f"{VISION}{name}.bias", (width,))
        return layer_norm(self.context.graph, state, name, scale, bias, epsilon)
