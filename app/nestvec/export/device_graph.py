"""Writes a model's graph for CUDA: packed, in half floats, with its pooling, and a shorter graph for each early exit.

CUDA graphs (captured launches) allow no branches, so each exit is a graph of its own here, over the same weights file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.graph.builder import WEIGHTS_FILE, FloatType, GraphBuilder
from nestvec.export.graph.inputs import DeviceAttention, packed_inputs
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.arithmetic import Floating
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.device_pooling import DEVICE_POOLINGS, device_pooled
from nestvec.export.layers.graph_heads import GraphHead

# File of an exit's graph, by its layer.
EXIT_GRAPH: Final = "exit_{}.onnx"
# Keys of the graph's metadata: number of layers that have an exit graph or are the whole model (0 where there are no
# exits), which attention, dtype, and pooling.
LAYERS: Final = "nestvec.device_layers"
ATTENTION: Final = "nestvec.route"
FLOAT_TYPE: Final = "nestvec.floats"
POOLING: Final = "nestvec.pooling"
# Output of the vectors in float16.
POOLED_HALF: Final = "pooled_half"


@dataclass(frozen=True, slots=True)
class DeviceExportOptions:
    """How a graph for CUDA is made.

    Attributes:
        float_type: The dtype of weights and states.
        attention: Which attention operator.
        pooling: The model's pooling; where the device cannot compute it, the graph gives token states only.
        head: What follows the encoder; None for token states as they are.
        takes_token_types: Whether the graph is told which tokens are of a pair's second text.
        has_exits: Whether to write a graph for each layer but the last.
    """

    float_type: FloatType = FloatType.FP16
    attention: DeviceAttention = DeviceAttention.PAGED
    pooling: str = "mean"
    head: GraphHead | None = None
    takes_token_types: bool = False
    has_exits: bool = False


def export_device_graph(
    folder: Path,
    config: Mapping[str, Any],
    path: Path,
    options: DeviceExportOptions,
    on_tensor: Callable[[int], None] | None = None,
) -> None:
    """Write a model's graph for CUDA: ids [T] to states `hidden` [T, W] and vectors `pooled` [B, W].

    Vectors are float32, and float16 as `pooled_half`; states are in the graph's dtype, bfloat16 ones as float32.

    Args:
        folder: Holds the safetensors.
        config: Content of its config.json; `architecture_of` it must be a key of `ARCHITECTURES`.
        path: Where the graph goes; its weights and the graphs of its exits go beside it.
        options: How it is made.
        on_tensor: Called with 1 for each tensor that was read; None for nobody to tell.

    Raises:
        FormatError: Configuration and weights do not fit each other, or no kernel computes the attention in this dtype.
        OSError: The disk is full or read-only.
    """
    graph = GraphBuilder(
        architecture_of(config),
        float_type=options.float_type,
        is_for_device=True,
        weights_path=path.parent / WEIGHTS_FILE,
    )
    inputs = packed_inputs(
        graph,
        takes_equal_lengths=False,
        takes_short_rows=False,
        takes_token_types=options.takes_token_types,
        device_attention=options.attention,
    )
    with Weights(folder, on_tensor=on_tensor) as weights:
        context = BuildContext(graph, weights, inputs, Floating())
        encoder = ARCHITECTURES[architecture_of(config)].build(config, context)
        outputs_by_path = {path: _add_outputs(context, encoder, options, "")}
        if options.has_exits:
            for layer in range(1, encoder.layers):
                outputs = _add_outputs(context, encoder.exit_at(layer), options, f"_{layer}")
                outputs_by_path[path.parent / EXIT_GRAPH.format(layer)] = outputs
    graph.metadata |= {ATTENTION: options.attention, FLOAT_TYPE: options.float_type}
    graph.metadata[LAYERS] = str(encoder.layers if options.has_exits else 0)
    if options.pooling in DEVICE_POOLINGS:
        graph.metadata[POOLING] = options.pooling
    graph.save_graphs(outputs_by_path)


def _add_outputs(
    context: BuildContext, encoder: Encoder, options: DeviceExportOptions, suffix: str
) -> list[str]:
    """Add head and pooling, and declare the outputs.

    Returns:
        Names of the outputs, which differ by `suffix` between the graphs of one builder.
    """
    graph = context.graph
    value, width = encoder.states[-1], encoder.hidden_size
    if options.head is not None:
        value, width = options.head(context, encoder)
    hidden = f"hidden{suffix}"
    graph.output(value, hidden, ("T", width))
    if options.pooling not in DEVICE_POOLINGS:
        return [hidden]
    pooled = device_pooled(graph, value, options.pooling, context.inputs)
    graph.output_as(pooled, f"pooled{suffix}", ("B", width), FloatType.FP32)
    graph.output_as(pooled, f"{POOLED_HALF}{suffix}", ("B", width), FloatType.FP16)
    return [hidden, f"pooled{suffix}", f"{POOLED_HALF}{suffix}"]
