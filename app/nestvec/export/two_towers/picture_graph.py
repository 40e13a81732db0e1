"""The tower of pictures of CLIP and SigLIP as a graph of its own: pixels to vectors in the space of the texts'.

Pixels come as bytes and are scaled in the graph, so that what waits in queues and crosses sockets is a quarter of what
floats would be.

Source: ViT (arXiv:2010.11929); SigLIP's pooling is that of Set Transformer (arXiv:1810.00825); tensor names as in
transformers' modeling_clip.py and modeling_siglip.py.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import packed_inputs
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.arithmetic import Floating
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.two_towers.attention_pooling import VISION, attended_by_query, read_pooling
from nestvec.export.two_towers.config import VisionSizes, read_vision_sizes
from nestvec.export.two_towers.layers import TowerBuilder
from nestvec.export.two_towers.patches import (
    CHANNELS,
    behind_class_token,
    class_states,
    cut_patches,
    embed_patches,
    reshaped,
)

PIXELS: Final = "pixels"
PICTURE_GRAPH: Final = "pictures.onnx"
PICTURE_WEIGHTS: Final = "pictures.bin"


@dataclass(frozen=True, slots=True)
class PixelScale:
    """How bytes of pixels become what the model was trained on: (byte * factor - mean) / std, channel by channel.

    Attributes:
        factor: What each byte is multiplied by.
        mean: Of red, green and blue.
        std: Of red, green and blue.
    """

    factor: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def add_to(self, graph: GraphBuilder, pixels: str) -> str:
        """Add the nodes that scale pixels, [..., 3] of bytes, to float32."""
        parts = {
            "pixel_factor": np.array(self.factor, np.float32),
            "pixel_mean": np.array(self.mean, np.float32),
            "pixel_std": np.array(self.std, np.float32),
        }
        factor, mean, std = (graph.weight(name, value) for name, value in parts.items())
        value = graph.op("Cast", pixels, to=graph.onnx_float_type)
        return graph.op("Div", graph.op("Sub", graph.op("Mul", value, factor), mean), std)


def export_picture_graph(
    folder: Path,
    config: Mapping[str, Any],
    scale: PixelScale,
    path: Path,
    on_tensor: Callable[[int], None] | None = None,
) -> None:
    """Write the graph of a model's pictures: `pixels` [B, S, S, 3], bytes, to `pooled` [B, D].

    Beside the pixels it takes the packed inputs of any graph, of B inputs of `VisionSizes.tokens` tokens each.

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
    sizes = read_vision_sizes(config)
    name = f"{sizes.family}_pictures"
    shape = ("B", sizes.image_size, sizes.image_size, CHANNELS)
    with begun_picture_graph(name, shape, folder, path, on_tensor) as (context, pixels):
        pooled = _Tower(context, sizes, TowerBuilder(context, VISION, sizes)).add(pixels, scale)
    context.graph.output(pooled, "pooled", ("B", sizes.projected_size))
    context.graph.save(path)


@contextmanager
def begun_picture_graph(
    name: str,
    shape: tuple[int | str, ...],
    folder: Path,
    path: Path,
    on_tensor: Callable[[int], None] | None,
) -> Iterator[tuple[BuildContext, str]]:
    """Begin a graph of pictures: with `pixels`, bytes, and the packed inputs of any graph.

    Args:
        name: Of the graph.
        shape: Of the pixels: [B, S, S, 3] of pictures of one size, [N, …] of patches.
        folder: Holds the weights, which are closed at the end of the block.
        path: Where the graph will go; its weights go beside it.
        on_tensor: Called with 1 for each tensor that was read; None for nobody to tell.

    Yields:
        The graph in the making, and the name of its pixels.
    """
    graph = GraphBuilder(name, weights_path=path.parent / PICTURE_WEIGHTS)
    pixels = graph.input(PIXELS, "uint8", shape)
    inputs = packed_inputs(graph, takes_equal_lengths=True, takes_short_rows=True)
    with Weights(folder, on_tensor=on_tensor) as weights:
        yield BuildContext(graph, weights, inputs, Floating()), pixels


@dataclass(frozen=True, slots=True)
class _Tower:
    """Adds the tower of pictures to a graph."""

    context: BuildContext
    sizes: VisionSizes
    builder: TowerBuilder

    @property
    def graph(self) -> GraphBuilder:
        return self.context.graph

    def add(self, pixels: str, scale: PixelScale) -> str:
        """Add all of it: [B, S, S, 3] to [B, D]."""
        state = self._embedded(scale.add_to(self.graph, self._patches(pixels)))
        if self.sizes.family == "clip":
            # The name is misspelt in the checkpoints.
            state = self.builder.norm(state, "pre_layrnorm")
        last = self.builder.stack(state)[-1]
        if self.sizes.family == "clip":
            return self._projected(last)
        return self._attended(self.builder.norm(last, "post_layernorm"))

    def _patches(self, pixels: str) -> str:
        """Cut pictures into patches, [B * patches, p, p, 3]; pixels beyond a whole number of patches are left out."""
        return cut_patches(self.graph, pixels, self.sizes.image_size, self.sizes.patch_size)

    def _embedded(self, patches: str) -> str:
        """Make token states [T, H] of patches: a convolution whose windows do not overlap is a product."""
        sizes, weights = self.sizes, self.context.weights
        width, patch = sizes.hidden_size, sizes.patch_size
        name = f"{VISION}embeddings.patch_embedding"
        kernel = weights.get(f"{name}.weight", (width, CHANNELS, patch, patch))
        bias = np.zeros(width, np.float32)
        if sizes.family == "siglip":
            bias = weights.get(f"{name}.bias", (width,))
        state = embed_patches(self.context, patches, kernel, bias)
        state = reshaped(self.graph, state, "pictures", -1, sizes.side_patches**2, width)
        if sizes.has_class_token:
            state = self._behind_class_token(state)
        places = weights.get(f"{VISION}embeddings.position_embedding.weight", (sizes.tokens, width))
        state = self.graph.op("Add", state, self.graph.weight("places", places))
        return reshaped(self.graph, state, "tokens", -1, width)

    def _behind_class_token(self, state: str) -> str:
        """Put the class token before the patches of each picture, [B, n, H] to [B, n + 1, H]."""
        name = f"{VISION}embeddings.class_embedding"
        token = self.context.weights.get(name, (self.sizes.hidden_size,))
        return behind_class_token(self.graph, state, token)

    def _projected(self, state: str) -> str:
        """Norm the class token's state and project it, [T, H] to [B, D]."""
        graph, sizes = self.graph, self.sizes
        token = class_states(graph, state, sizes.tokens, sizes.hidden_size)
        normed = self.builder.norm(token, "post_layernorm")
        layer = self.context.linear("visual_projection", sizes.projected_size, sizes.hidden_size)
        return self.context.arithmetic.apply(graph, normed, [layer])[0]

    def _attended(self, state: str) -> str:
        """Let a learned query attend to all patches, then an MLP: [T, H] to [B, H]."""
        graph, sizes = self.graph, self.sizes
        layers = read_pooling(self.builder)
        joined = attended_by_query(
            self.context, state, layers.query, layers.key, layers.value, sizes.tokens
        )
        (attended,) = self.context.arithmetic.apply(graph, joined, [layers.output])
        normed = self.builder.norm(attended, "head.layernorm")
        return graph.op("Add", attended, self.builder.mlp(normed, "head.mlp"))
