"""The towers of pictures of Qwen3-VL and Qwen2-VL as graphs: patches of pictures of any shape to rows for the decoder.

Pixels come as bytes and are scaled in the graph. Both frames of a picture are the same, so the weights of the
convolution's two are added up. Qwen3-VL's table of positions is interpolated to the grid of each picture; Qwen2-VL has
none.

Source: Qwen3-VL (arXiv:2511.21631); DeepStack (arXiv:2406.04334); Qwen2-VL (arXiv:2409.12191); tensor names as in
transformers' modeling_qwen3_vl.py and modeling_qwen2_vl.py, and interpolation as in its vision_utils.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_spec import AttentionSpec
from nestvec.export.layers.blocks import feed_forward, layer_norm
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.rotary_embedding import RotaryEmbedding
from nestvec.export.layers.rotary_frequencies import RotaryFrequencies
from nestvec.export.two_towers.patches import CHANNELS, reshaped
from nestvec.export.two_towers.picture_graph import PixelScale, begun_picture_graph
from nestvec.export.vision_language.config import VisionTowerSizes

# Of each patch its row and column, and how many rows and columns its picture has: [4, N], int64.
PATCH_GRID: Final = "patch_grid"
PATCH_EMBEDDING: Final = "visual.patch_embed.proj.weight"
NORM_EPSILON: Final = 1e-6
MERGER_ACT: Final = "gelu"


@dataclass(frozen=True, slots=True)
class TowerNames:
    """What a family calls the tensors of its tower.

    Attributes:
        prefixes: What may stand before all of them.
        mlp: The two layers of a block's MLP.
        merger: The norm and the two layers that make a row of patches.
        has_patch_bias: Whether patches are embedded with a bias.
    """

    prefixes: tuple[str, ...]
    mlp: tuple[str, str]
    merger: tuple[str, str, str]
    has_patch_bias: bool


QWEN3_TOWER: Final = TowerNames(
    ("", "model."),
    ("linear_fc1", "linear_fc2"),
    ("norm", "linear_fc1", "linear_fc2"),
    has_patch_bias=True,
)
COLQWEN2_TOWER: Final = TowerNames(
    ("vlm.", "vlm.model."),
    ("fc1", "fc2"),
    ("ln_q", "mlp.0", "mlp.2"),
    has_patch_bias=False,
)


def export_vision_graph(
    folder: Path,
    sizes: VisionTowerSizes,
    names: TowerNames,
    scale: PixelScale,
    path: Path,
    on_tensor: Callable[[int], None] | None = None,
) -> None:
    """Write the graph of a model's pictures: `pixels` [N, p * p * 3], bytes, to `hidden` [N / m², rows' width].

    N is the number of patches of all pictures of a batch, those that are merged one behind the other: m rows and m
    columns of them. Beside pixels and `patch_grid` it takes the packed inputs of any graph, of a sequence for each
    picture.

    Args:
        folder: Holds the weights.
        sizes: The tower's sizes.
        names: What its tensors are called.
        scale: How bytes become what the model was trained on.
        path: Where the graph goes; its weights go beside it.
        on_tensor: Called with 1 for each tensor that was read; None for nobody to tell.

    Raises:
        FormatError: Configuration and weights do not fit each other.
        OSError: The disk is full or read-only.
    """
    shape = ("N", CHANNELS * sizes.patch_size**2)
    with begun_picture_graph("vision_tower", shape, folder, path, on_tensor) as (context, pixels):
        graph = context.graph
        grid = graph.input(PATCH_GRID, "int64", (4, "N"))
        prefix = common_prefix(context.weights, PATCH_EMBEDDING, names.prefixes) + "visual."
        rows = _VisionTower(context, prefix, sizes, names).add(pixels, grid, scale)
    graph.output(rows, "hidden", ("M", sizes.row_width))
    graph.save(path)


@dataclass(frozen=True, slots=True)
class _VisionTower:
    """Adds the tower to a graph."""

    context: BuildContext
    prefix: str
    sizes: VisionTowerSizes
    names: TowerNames

    @property
    def graph(self) -> GraphBuilder:
        return self.context.graph

    def add(self, pixels: str, grid: str, scale: PixelScale) -> str:
        """Add all of it: [N, p * p * 3] to [N / m², rows' width]."""
        sizes, graph = self.sizes, self.graph
        row, column = (self._row_of(grid, number) for number in range(2))
        colours = reshaped(self.graph, pixels, "colours", -1, CHANNELS)
        scaled = scale.add_to(graph, colours)
        values = CHANNELS * sizes.patch_size**2
        state = self._embedded(reshaped(self.graph, scaled, "patch_values", -1, values))
        if sizes.position_side:
            rows, columns = (self._row_of(grid, number) for number in range(2, 4))
            state = graph.op("Add", state, self._positions((row, rows), (column, columns)))
        rotary = self._rotary(row, column)
        layers = [
            partial(self._layer, name=f"blocks.{number}", rotary=rotary)
            for number in range(sizes.depth)
        ]
        states = self.context.stack(state, layers, sizes.hidden_size)
        parts = [self._merged(states[-1], "merger", is_wide_norm=False)]
        parts += [
            self._merged(states[layer + 1], f"deepstack_merger_list.{number}", is_wide_norm=True)
            for number, layer in enumerate(sizes.deepstack_layers)
        ]
        return graph.op("Concat", *parts, axis=1)

    def _embedded(self, patches: str) -> str:
        """Make states [N, H] of patches: a convolution whose windows do not overlap is a product."""
        sizes, weights = self.sizes, self.context.weights
        frames, patch, width = sizes.temporal_patch_size, sizes.patch_size, sizes.hidden_size
        name = f"{self.prefix}patch_embed.proj"
        kernel = weights.get(f"{name}.weight", (width, CHANNELS, frames, patch, patch))
        has_bias = self.names.has_patch_bias
        bias = weights.get(f"{name}.bias", (width,)) if has_bias else np.zeros(width, np.float32)
        summed = kernel.astype(np.float64).sum(axis=2).astype(np.float32)
        layer = Linear("patches", summed.transpose(2, 3, 1, 0).reshape(-1, width), bias)
        return self.context.arithmetic.apply(self.graph, patches, [layer])[0]

    def _positions(self, row: tuple[str, str], column: tuple[str, str]) -> str:
        """Interpolate the table of positions to each patch's place, [N, H]; both are a place and how many there are."""
        graph, side = self.graph, self.sizes.position_side
        table = graph.weight(
            "places",
            self.context.weights.get(
                f"{self.prefix}pos_embed.weight", (side * side, self.sizes.hidden_size)
            ),
        )
        width = graph.weight("side", np.array(side, np.int64))
        last = graph.weight("column", np.array([1], np.int64))
        summed = ""
        for line, line_weight in self._neighbours(*row):
            start = graph.op("Mul", line, width)
            for place, place_weight in self._neighbours(*column):
                found = graph.op("Gather", table, graph.op("Add", start, place), axis=0)
                weight = graph.op("Unsqueeze", graph.op("Mul", line_weight, place_weight), last)
                part = graph.op("Mul", found, weight)
                summed = graph.op("Add", summed, part) if summed else part
        return summed

    def _neighbours(self, place: str, count: str) -> list[tuple[str, str]]:
        """Return the two lines of the table around places of an axis, [N], int64, and their weights, [N].

        The first place is the table's first line, and the last its last.
        """
        graph, side = self.graph, self.sizes.position_side
        one = graph.weight("one", np.array(1, np.int64))
        gaps = graph.op("Max", graph.op("Sub", count, one), one)
        scaled = graph.op(
            "Div",
            graph.op("Mul", self._float(place), self._number("last_line", side - 1)),
            self._float(gaps),
        )
        floor = graph.op("Floor", scaled)
        share = graph.op("Sub", scaled, floor)
        line = graph.op("Cast", floor, to=TensorProto.INT64)
        highest = graph.weight("highest_line", np.array(side - 1, np.int64))
        below = graph.op("Min", graph.op("Add", line, one), highest)
        rest = graph.op("Sub", self._number("whole", 1), share)
        return [(line, rest), (below, share)]

    def _rotary(self, row: str, column: str) -> RotaryEmbedding:
        """Add each patch's angles: half of the pairs turn with its row, half with its column."""
        graph, sizes = self.graph, self.sizes
        spatial = sizes.hidden_size // sizes.num_heads // 2
        exponents = np.arange(0, spatial, 2, dtype=np.float32) / np.float32(spatial)
        values = (1.0 / np.float32(sizes.theta) ** exponents).astype(np.float32)
        weight = graph.weight("frequencies", values[None])
        axis = graph.weight("column", np.array([1], np.int64))
        angles = [
            graph.op("Mul", graph.op("Unsqueeze", self._float(place), axis), weight)
            for place in (row, column)
        ]
        both_halves = graph.op("Unsqueeze", graph.op("Concat", *angles, *angles, axis=-1), axis)
        frequencies = RotaryFrequencies(np.concatenate([values, values]))
        cosine, sine = graph.op("Cos", both_halves), graph.op("Sin", both_halves)
        return RotaryEmbedding(cosine, sine, row, frequencies, max_positions=0)

    def _layer(self, state: str, name: str, rotary: RotaryEmbedding) -> str:
        """Add a block, [N, H] to [N, H]."""
        graph, sizes = self.graph, self.sizes
        size = sizes.hidden_size
        shared: dict[str, Any] = {"prefix": self.prefix, "has_bias": True}
        query, key, value = self.context.split_linear(f"{name}.attn.qkv", 3, size, size, **shared)
        output = self.context.linear(f"{name}.attn.proj", size, size, **shared)
        spec = AttentionSpec(query, key, value, output, sizes.num_heads, rotary=rotary)
        normed = self._norm(state, f"{name}.norm1", size)
        state = graph.op("Add", state, self_attention(self.context, normed, spec))
        inner = sizes.intermediate_size
        names = [f"{name}.mlp.{part}" for part in self.names.mlp]
        first = self.context.linear(names[0], inner, size, **shared)
        last = self.context.linear(names[1], size, inner, **shared)
        normed = self._norm(state, f"{name}.norm2", size)
        grown = feed_forward(self.context, normed, [first], last, sizes.hidden_act)
        return graph.op("Add", state, grown)

    def _merged(self, state: str, name: str, *, is_wide_norm: bool) -> str:
        """Make one row of the patches that lie together, [N, H] to [N / m², decoder's H]."""
        sizes = self.sizes
        wide = sizes.hidden_size * sizes.spatial_merge_size**2
        norm, *linear = (f"{name}.{part}" for part in self.names.merger)
        if is_wide_norm:
            rows = self._norm(reshaped(self.graph, state, "merged", -1, wide), norm, wide)
        else:
            normed = self._norm(state, norm, sizes.hidden_size)
            rows = reshaped(self.graph, normed, "merged", -1, wide)
        shared: dict[str, Any] = {"prefix": self.prefix, "has_bias": True}
        first = self.context.linear(linear[0], wide, wide, **shared)
        last = self.context.linear(linear[1], sizes.out_hidden_size, wide, **shared)
        return feed_forward(self.context, rows, [first], last, MERGER_ACT)

    def _norm(self, state: str, name: str, size: int) -> str:
        weights = self.context.weights
        scale = weights.get(f"{self.prefix}{name}.weight", (size,))
        bias = weights.get(f"{self.prefix}{name}.bias", (size,))
        return layer_norm(self.graph, state, name, scale, bias, NORM_EPSILON)

    def _row_of(self, grid: str, number: int) -> str:
        graph = self.graph
        index = graph.weight(f"grid_{number}", np.array([number], np.int64))
        axis = graph.weight("first_axis", np.array([0], np.int64))
        return graph.op("Squeeze", graph.op("Gather", grid, index, axis=0), axis)

    def _float(self, value: str) -> str:
        return self.graph.op("Cast", value, to=TensorProto.FLOAT)

    def _number(self, name: str, value: float) -> str:
        return self.graph.weight(name, np.array(value, np.float32))
