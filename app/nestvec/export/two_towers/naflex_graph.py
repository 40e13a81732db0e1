"""The tower of pictures of SigLIP 2 NaFlex as a graph: patches of pictures of any shapes, packed, to their vectors.

Patches of all pictures stand one behind the other, as tokens of texts do, so that a picture of few patches costs few. A
table of positions, learned for a square, is resized to each picture's rows and columns. Resizing is linear: a patch's
position is the table's rows weighted by where the patch lies, a product that needs no loop over pictures.

Source: NaViT (arXiv:2307.06304), SigLIP 2 (arXiv:2502.14786); the weights of `torch.nn.functional.interpolate` with
`mode="bilinear", align_corners=False, antialias=True`; tensor names as in transformers' modeling_siglip2.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import PackedInputs
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.two_towers.attention_pooling import VISION, read_pooling
from nestvec.export.two_towers.config import NaFlexSizes, read_naflex_sizes
from nestvec.export.two_towers.layers import TowerBuilder
from nestvec.export.two_towers.patches import CHANNELS, reshaped
from nestvec.export.two_towers.picture_graph import PixelScale, begun_picture_graph

GRIDS: Final = "grids"


def export_naflex_graph(
    folder: Path,
    config: Mapping[str, Any],
    scale: PixelScale,
    path: Path,
    on_tensor: Callable[[int], None] | None = None,
) -> None:
    """Write the graph of a model's pictures: `pixels` [T, p, p, 3], bytes, and `grids` [B, 2] to `pooled` [B, D].

    A grid is a picture's rows and columns of patches. Beside these it takes the packed inputs of any graph.

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
    sizes = read_naflex_sizes(config)
    name, side = f"{sizes.family}_pictures", sizes.patch_size
    shape = ("T", side, side, CHANNELS)
    with begun_picture_graph(name, shape, folder, path, on_tensor) as (context, pixels):
        graph = context.graph
        grids = graph.input(GRIDS, "int64", ("B", 2))
        tower = _Tower(context, sizes, TowerBuilder(context, VISION, sizes))
        pooled = tower.add(scale.add_to(graph, pixels), grids)
    graph.output(pooled, "pooled", ("B", sizes.projected_size))
    graph.save(path)


def resized_positions(
    graph: GraphBuilder, inputs: PackedInputs, grids: str, table: np.ndarray[Any, Any]
) -> str:
    """Add each patch's position, of a table that is resized to its picture's grid.

    Along an axis of G places, resized to n, place i of these takes of place j the share of a tent around
    (i + 1/2) · G / n - 1/2, as wide as a step between places of the smaller of both.

    Args:
        graph: Takes the nodes.
        inputs: The packed inputs.
        grids: Rows and columns of patches of each picture, [B, 2], int64.
        table: [G, G, H], float32.

    Returns:
        [T, H], float32.
    """
    side, _, width = table.shape
    places, sizes = _places(graph, inputs, grids)
    numbers = {
        "side": np.array(side, np.float32),
        "half": np.array(0.5, np.float32),
        "unit": np.array(1, np.float32),
        "sources": np.arange(side, dtype=np.float32),
    }
    named = {name: graph.weight(f"place_{name}", value) for name, value in numbers.items()}
    last = graph.weight("last", np.array([-1], np.int64))
    step = graph.op("Div", named["side"], sizes)
    centre = graph.op("Mul", graph.op("Add", places, named["half"]), step)
    centre = graph.op("Unsqueeze", graph.op("Sub", centre, named["half"]), last)
    reach = graph.op("Unsqueeze", graph.op("Max", step, named["unit"]), last)
    distance = graph.op("Abs", graph.op("Sub", named["sources"], centre))
    tent = graph.op("Sub", named["unit"], graph.op("Div", distance, reach))
    raw = graph.op("Relu", tent)  # [T, 2, G]
    shares = graph.op("Div", raw, graph.op("ReduceSum", raw, last, keepdims=1))
    axis = graph.weight("axis_1", np.array([1], np.int64))
    rows, columns = (
        graph.op("Squeeze", part, axis)
        for part in graph.op_outputs("Split", 2, shares, axis=1, num_outputs=2)
    )
    product = graph.op(
        "Mul", graph.op("Unsqueeze", rows, last), graph.op("Unsqueeze", columns, axis)
    )
    flat = graph.op("Reshape", product, graph.weight("grid", np.array([-1, side**2], np.int64)))
    return graph.op("MatMul", flat, graph.weight("places", table.reshape(side**2, width)))


def _places(graph: GraphBuilder, inputs: PackedInputs, grids: str) -> tuple[str, str]:
    """Add the row and the column of each patch, and how many there are in its picture, [T, 2] each, float32."""
    longest = graph.op("Shape", inputs.gather, start=1, end=2)
    sizes = graph.op("Gather", grids, graph.op("Div", inputs.scatter, longest), axis=0)
    last = graph.weight("last", np.array([-1], np.int64))
    columns = graph.op("Gather", sizes, graph.weight("axis_1", np.array([1], np.int64)), axis=1)
    positions = graph.op("Unsqueeze", inputs.positions, last)
    row = graph.op("Div", positions, columns)
    column = graph.op("Sub", positions, graph.op("Mul", row, columns))
    places = graph.op("Concat", row, column, axis=1)
    as_floats = (graph.op("Cast", value, to=TensorProto.FLOAT) for value in (places, sizes))
    return next(as_floats), next(as_floats)


@dataclass(frozen=True, slots=True)
class _Tower:
    """Adds the tower of pictures to a graph."""

    context: BuildContext
    sizes: NaFlexSizes
    builder: TowerBuilder

    @property
    def graph(self) -> GraphBuilder:
        return self.context.graph

    def add(self, patches: str, grids: str) -> str:
        """Add all of it: scaled patches [T, p, p, 3] to [B, H]."""
        last = self.builder.stack(self._embedded(patches, grids))[-1]
        return self._pooled(self.builder.norm(last, "post_layernorm"))

    def _embedded(self, patches: str, grids: str) -> str:
        """Make states [T, H] of patches and of where they lie."""
        sizes = self.sizes
        values = CHANNELS * sizes.patch_size**2
        flat = reshaped(self.graph, patches, "patch_values", -1, values)
        layer = self.builder.linear("embeddings.patch_embedding", sizes.hidden_size, values)
        (state,) = self.context.arithmetic.apply(self.graph, flat, [layer])
        side, width = sizes.grid_side, sizes.hidden_size
        table = self.context.weights.get(
            f"{VISION}embeddings.position_embedding.weight", (side**2, width)
        )
        places = table.reshape(side, side, width)
        added = resized_positions(self.graph, self.context.inputs, grids, places)
        return self.graph.op("Add", state, added)

    def _pooled(self, state: str) -> str:
        """Let a learned query attend to the patches of each picture, then an MLP: [T, H] to [B, H].

        The query is the same for all pictures, so the products of keys with it are one layer of as many columns as
        there are heads. What biases of keys add is the same for all patches, and changes no share.
        """
        graph, inputs, sizes = self.graph, self.context.inputs, self.sizes
        heads, width = sizes.num_attention_heads, sizes.hidden_size
        layers = read_pooling(self.builder)
        keys = layers.key.weight.reshape(width, heads, width // heads).astype(np.float64)
        by_query = np.einsum("ihd,hd->ih", keys, layers.query[..., 0]).astype(np.float32)
        scores = graph.op("MatMul", state, graph.weight("pool.scores", by_query))
        (values,) = self.context.arithmetic.apply(graph, state, [layers.value])
        scores, values = (
            graph.op("Gather", part, inputs.gather, axis=0) for part in (scores, values)
        )
        masked = graph.op(
            "Add", scores, reshaped(self.graph, inputs.padding_mask, "pool_mask", 0, -1, 1)
        )
        last = graph.weight("last", np.array([-1], np.int64))
        shares = graph.op("Unsqueeze", graph.op("Softmax", masked, axis=1), last)
        split = reshaped(self.graph, values, "pool_heads", 0, 0, heads, width // heads)
        mixed = graph.op("Mul", split, shares)
        summed = graph.op(
            "ReduceSum", mixed, graph.weight("axis_1", np.array([1], np.int64)), keepdims=0
        )
        joined = reshaped(self.graph, summed, "pooled_rows", -1, width)
        (attended,) = self.context.arithmetic.apply(graph, joined, [layers.output])
        normed = self.builder.norm(attended, "head.layernorm")
        return graph.op("Add", attended, self.builder.mlp(normed, "head.mlp"))
