"""Writes a model's graph for CUDA: packed, in half floats, with its pooling, and a shorter graph for each early exit.

CUDA graphs (captured launches) allow no branches, so exits are graphs of their own here, over the same weights on disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.graph.builder import FloatType, GraphBuilder
from nestvec.export.graph.inputs import DeviceRoute, packed_inputs
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.arithmetic import Floating
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import Site
from nestvec.export.layers.device_pooling import DEVICE_POOLINGS, device_pooled
from nestvec.export.layers.heads import Tail

EXIT_GRAPH: Final = "exit_{}.onnx"
# What a graph says of itself.
LAYERS: Final = "nestvec.device_layers"
ROUTE: Final = "nestvec.route"
FLOATS: Final = "nestvec.floats"
POOLING: Final = "nestvec.pooling"
HALF: Final = "pooled_half"


@dataclass(frozen=True, slots=True)
class DeviceRecipe:
    """How to make a graph for CUDA.

    Attributes:
        floats: What weights and states are in.
        route: Which attention.
        pooling: What the model pools by; where the device cannot, token states are all it gives.
        tail: The graph's end; token states as they are by default.
        asks_types: Whether it is told the tokens of a pair's second text.
        has_exits: Whether to write a graph for each layer but the last.
    """

    floats: FloatType = FloatType.FP16
    route: DeviceRoute = DeviceRoute.PAGED
    pooling: str = "mean"
    tail: Tail | None = None
    asks_types: bool = False
    has_exits: bool = False


def export_device_graph(
    folder: Path, config: Mapping[str, Any], path: Path, recipe: DeviceRecipe
) -> None:
    """Write a folder's graph: ids (T,) to states `hidden` (T, W) and vectors `pooled` (B, W).

    Vectors are float32, and float16 as `pooled_half`; states are in the graph's floats, bfloat16 ones as float32.

    Args:
        folder: Holds the safetensors.
        config: Its config.json; `architecture_of` it must be in `ARCHITECTURES`.
        path: Where the graph goes; its weights and the graphs of its exits go beside it.
        recipe: How.

    Raises:
        FormatError: Configuration and weights do not fit, or no kernel does it in these floats.
        OSError: The disk is full or read-only.
    """
    graph = GraphBuilder(architecture_of(config), floats=recipe.floats, is_for_device=True)
    inputs = packed_inputs(
        graph,
        asks_equal=False,
        asks_short=False,
        asks_types=recipe.asks_types,
        device_route=recipe.route,
    )
    with Weights(folder) as weights:
        site = Site(graph, weights, inputs, Floating())
        encoder = ARCHITECTURES[architecture_of(config)].build(config, site)
        parts = {path: _ended(site, encoder, recipe, "")}
        if recipe.has_exits:
            for layer in range(1, encoder.layers):
                outputs = _ended(site, encoder.until(layer), recipe, f"_{layer}")
                parts[path.parent / EXIT_GRAPH.format(layer)] = outputs
    graph.metadata |= {ROUTE: recipe.route, FLOATS: recipe.floats}
    graph.metadata[LAYERS] = str(encoder.layers if recipe.has_exits else 0)
    if recipe.pooling in DEVICE_POOLINGS:
        graph.metadata[POOLING] = recipe.pooling
    graph.save_parts(parts)


def _ended(site: Site, encoder: Encoder, recipe: DeviceRecipe, suffix: str) -> list[str]:
    """Add the end of a graph; gives the names of its outputs, which must differ between graphs of one builder."""
    graph = site.graph
    value, width = encoder.states[-1], encoder.hidden_size
    if recipe.tail is not None:
        value, width = recipe.tail(site, encoder)
    hidden = f"hidden{suffix}"
    graph.output(value, hidden, ("T", width))
    if recipe.pooling not in DEVICE_POOLINGS:
        return [hidden]
    pooled = device_pooled(graph, value, recipe.pooling, site.inputs)
    graph.typed_output(pooled, f"pooled{suffix}", ("B", width), FloatType.FP32)
    graph.typed_output(pooled, f"{HALF}{suffix}", ("B", width), FloatType.FP16)
    return [hidden, f"pooled{suffix}", f"{HALF}{suffix}"]
