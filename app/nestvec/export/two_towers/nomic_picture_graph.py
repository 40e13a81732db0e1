"""nomic-embed-vision as a graph: pixels to vectors in the space of nomic-embed-text.

Source: EVA-02 (arXiv:2303.11331), with the pooling by attention of Nomic Embed Vision (arXiv:2406.18587); tensor names
as in the published checkpoints.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_spec import AttentionSpec
from nestvec.export.layers.blocks import activation, layer_norm
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.rotary_embedding import RotaryEmbedding
from nestvec.export.two_towers.attention_pooling import attended_by_query, scaled_query
from nestvec.export.two_towers.grid_rotation import grid_places, grid_rotation, with_halves_paired
from nestvec.export.two_towers.nomic_vision import NomicVisionSizes, read_nomic_vision
from nestvec.export.two_towers.patches import (
    CHANNELS,
    behind_class_token,
    class_states,
    cut_patches,
    embed_patches,
    reshaped,
)
from nestvec.export.two_towers.picture_graph import PixelScale, begun_picture_graph

MLP_NORM_EPSILON: Final = 1e-5  # torch's default, whatever config.json says of other norms


def export_nomic_pictures(
    folder: Path,
    config: Mapping[str, Any],
    scale: PixelScale,
    path: Path,
    on_tensor: Callable[[int], None] | None = None,
) -> None:
    """Write the graph of pictures: `pixels` [B, S, S, 3], bytes, to `pooled` [B, H].

    Args:
        folder: Holds the weights of nomic-embed-vision.
        config: Content of its config.json.
        scale: How bytes become what the model was trained on.
        path: Where the graph goes; its weights go beside it.
        on_tensor: Called with 1 for each tensor that was read; None for nobody to tell.

    Raises:
        FormatError: Configuration and weights do not fit each other.
        OSError: The disk is full or read-only.
    """
    sizes = read_nomic_vision(config)
    name, side = "nomic_pictures", sizes.image_size
    shape = ("B", side, side, CHANNELS)
    with begun_picture_graph(name, shape, folder, path, on_tensor) as (context, pixels):
        pooled = _NomicTower(context, sizes).add(pixels, scale)
    context.graph.output(pooled, "pooled", ("B", sizes.hidden_size))
    context.graph.save(path)


@dataclass(frozen=True, slots=True)
class _NomicTower:
    """Adds the tower to a graph."""

    context: BuildContext
    sizes: NomicVisionSizes

    def add(self, pixels: str, scale: PixelScale) -> str:
        """Add all of it: [B, S, S, 3] to [B, H]."""
        graph, sizes = self.context.graph, self.sizes
        patches = cut_patches(graph, pixels, sizes.image_size, sizes.patch_size)
        state = self._embedded(scale.add_to(graph, patches))
        rotary = None
        if sizes.trained_grid is not None:
            places = [grid_places(sizes.side_patches, side) for side in sizes.trained_grid]
            width = sizes.hidden_size // sizes.num_attention_heads
            rotary = grid_rotation(self.context, width, *places)
        layers = [
            partial(self._layer, name=f"layers.{number}", rotary=rotary)
            for number in range(sizes.num_hidden_layers)
        ]
        return self._pooled(self.context.stack(state, layers, sizes.hidden_size)[-1])

    def _embedded(self, patches: str) -> str:
        """Make token states [T, H] of patches, behind a class token."""
        graph, sizes, weights = self.context.graph, self.sizes, self.context.weights
        width, patch = sizes.hidden_size, sizes.patch_size
        name = "embeddings.proj"
        kernel = weights.get(f"{name}.weight", (width, CHANNELS * patch * patch))
        bias = np.zeros(width, np.float32)
        if sizes.has_patch_bias:
            bias = weights.get(f"{name}.bias", (width,))
        kernel = kernel.reshape(width, CHANNELS, patch, patch)
        state = embed_patches(self.context, patches, kernel, bias)
        state = reshaped(graph, state, "pictures", -1, sizes.tokens - 1, width)
        token = weights.get("embeddings.cls_token", (1, 1, width))
        state = behind_class_token(graph, state, token.reshape(width))
        if sizes.has_positions:
            places = weights.get("embeddings.pos_embed", (1, sizes.tokens, width))
            state = graph.op("Add", state, graph.weight("places", places[0]))
        return reshaped(graph, state, "tokens", -1, width)

    def _layer(self, state: str, name: str, rotary: RotaryEmbedding | None) -> str:
        graph, sizes, heads = self.context.graph, self.sizes, self.sizes.num_attention_heads
        query, key, value = self._parts(f"{name}.attn.Wqkv", 3)
        if rotary is not None:
            query, key = (with_halves_paired(layer, heads) for layer in (query, key))
        (output,) = self._parts(f"{name}.attn.out_proj", 1)
        spec = AttentionSpec(query, key, value, output, heads, rotary=rotary)
        normed = self._norm(state, f"{name}.norm1")
        state = graph.op("Add", state, self_attention(self.context, normed, spec))
        normed = self._norm(state, f"{name}.norm2")
        mlp = self._mlp(normed, f"{name}.mlp", is_normed=sizes.norms_mlp)
        return graph.op("Add", state, mlp)

    def _mlp(self, state: str, name: str, *, is_normed: bool) -> str:
        """Add an MLP, [n, H] to [n, H]."""
        context, sizes = self.context, self.sizes
        inner, size = sizes.intermediate_size, sizes.hidden_size
        first = [
            context.linear(f"{name}.{part}", inner, size, has_bias=sizes.has_mlp_up_bias)
            for part in (("fc12", "fc11") if sizes.is_gated else ("fc1",))
        ]
        last = context.linear(f"{name}.fc2", size, inner, has_bias=sizes.has_mlp_down_bias)
        projected = context.arithmetic.apply(context.graph, state, first)
        value = activation(context.graph, projected[0], sizes.hidden_act)
        for factor in projected[1:]:
            value = context.graph.op("Mul", value, factor)
        if is_normed:
            value = self._norm(value, f"{name}.norm", inner, MLP_NORM_EPSILON)
        return context.arithmetic.apply(context.graph, value, [last])[0]

    def _pooled(self, state: str) -> str:
        """Add what a learned query makes of all tokens to the class token's state: [T, H] to [B, H]."""
        context, graph, sizes = self.context, self.context.graph, self.sizes
        width, name = sizes.hidden_size, "selector.attn"
        latent = context.weights.get(f"{name}.latent", (1, 1, width)).reshape(width)
        (asked,) = self._parts(f"{name}.Wq", 1)
        key, value = self._parts(f"{name}.Wkv", 2)
        query = latent.astype(np.float64) @ asked.weight + asked.bias
        scaled = scaled_query(query, sizes.num_attention_heads)
        attended = attended_by_query(context, state, scaled, key, value, sizes.tokens)
        projected = context.arithmetic.apply(graph, attended, self._parts(f"{name}.out_proj", 1))
        normed = self._norm(projected[0], "selector.norm1")
        first = class_states(graph, state, sizes.tokens, width)
        return graph.op("Add", first, self._mlp(normed, "selector.mlp", is_normed=False))

    def _parts(self, name: str, parts: int) -> list[Linear]:
        """Read projections that lie one below the other in a tensor."""
        size, has_bias = self.sizes.hidden_size, self.sizes.has_projection_bias
        return self.context.split_linear(name, parts, size, size, has_bias=has_bias)

    def _norm(self, state: str, name: str, size: int = 0, epsilon: float = 0.0) -> str:
        """Add a layer norm, of states where no size is said."""
        width = size or self.sizes.hidden_size
        scale = self.context.weights.get(f"{name}.weight", (width,))
        bias = self.context.weights.get(f"{name}.bias", (width,))
        eps = epsilon or self.sizes.layer_norm_eps
        return layer_norm(self.context.graph, state, name, scale, bias, eps)
