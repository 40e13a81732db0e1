"""Self-attention on CUDA: packed, by onnxruntime's own kernels.

PackedMultiHeadAttention takes queries, keys and values of all inputs end to end and the cumulative lengths; with no
bias on scores it is FlashAttention-2 (arXiv:2307.08691). It is not causal, has no window, turns no heads, and knows
float16 and float32. PagedAttention can all that, in float16 and bfloat16; it writes keys and values to pages first,
as servers of generating models need it. All layers of a graph write to the same pages, one after the other.
"""

from typing import Final

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.graph.builder import MICROSOFT, FloatType, GraphBuilder
from nestvec.export.graph.inputs import DeviceInputs, DeviceRoute, PackedInputs
from nestvec.export.layers.arithmetic import Floating, Linear
from nestvec.export.layers.attention_layers import Attention, for_each_query, normed_heads
from nestvec.export.layers.rotary import Turn

# What the flash kernel asks of pages: so many tokens, by the width of a head that they are good for.
PAGE_TOKENS: Final = ((64, 256), (128, 128), (256, 64))
# In the graph's metadata: tokens, heads and width of a page; whether a kernel reads the values of `token_offset`;
# whether scores of each input have a bias of its own, B·S² cells.
PAGES: Final = "nestvec.pages"
READS_OFFSETS: Final = "nestvec.reads_offsets"
IS_PADDED: Final = "nestvec.is_padded"
FUSED_STEP: Final = 8  # heads of other widths reach no fused kernel
WIDTH_STEP: Final = 16  # of a head, for PagedAttention


def device_attention(
    graph: GraphBuilder, state: str, layers: Attention, inputs: PackedInputs
) -> str:
    """Packed states (T, H) to attended states (T, heads · d), before the output projection.

    Raises:
        FormatError: No kernel does it in the graph's floats.
    """
    device = inputs.device
    if device is None:
        raise ValueError("not a device graph")
    if _is_paged(graph, layers, device.route):
        return _paged(graph, state, layers, device)
    if graph.floats is FloatType.BF16:
        raise FormatError(
            "precision bf16: on a GPU this architecture's attention has no kernel for it; use fp16 or fp32"
        )
    return _packed(graph, state, layers, inputs, device)


def page_tokens(width: int) -> int:
    """Tokens of a page, for heads so wide."""
    return next((tokens for most, tokens in PAGE_TOKENS if width <= most), 0)


def _is_paged(graph: GraphBuilder, layers: Attention, route: DeviceRoute) -> bool:
    """Whether PagedAttention can and should do it."""
    seen = layers.sight
    can = (
        graph.floats is not FloatType.FP32
        and layers.bias is None
        and layers.relate is None
        and (seen.is_causal or not seen.window)  # its window is on one side
        and layers.width % WIDTH_STEP == 0
        and page_tokens(layers.width) > 0
    )
    should = route is DeviceRoute.PAGED and (not layers.has_plain_heads or seen.is_causal)
    return can and (should or graph.floats is FloatType.BF16)


def _paged(graph: GraphBuilder, state: str, layers: Attention, device: DeviceInputs) -> str:
    tokens = page_tokens(layers.width)
    graph.metadata[PAGES] = f"{tokens},{layers.shared},{layers.width}"
    shape = ("pages", tokens, layers.shared, layers.width)
    pages = [graph.shared_input(name, graph.floats, shape) for name in ("key_pages", "value_pages")]
    merged = _merged(graph, state, [layers.query, layers.key, layers.value])
    turns = ["", ""] if layers.turn is None else _tables(graph, layers.turn)
    norms = ["", ""]
    attributes: dict[str, float | int] = {}
    if layers.norms is not None:
        name = layers.norms.name
        norms = [
            graph.weight(f"{name}.q_norm.weight", layers.norms.query),
            graph.weight(f"{name}.k_norm.weight", layers.norms.key),
        ]
        attributes["qk_norm_epsilon"] = layers.norms.epsilon
    if layers.sight.window:
        attributes["local_window_size"] = layers.sight.window
    return graph.op(
        "PagedAttention",
        *(merged, "", "", *pages),
        *(device.cumulative_lengths, device.past_lengths, device.block_table),
        *(*turns, "", "", *norms, "", ""),
        device.bounds,
        domain=MICROSOFT,
        num_heads=layers.heads,
        kv_num_heads=layers.shared,
        scale=layers.factor,
        do_rotary=int(layers.turn is not None),
        is_causal=int(layers.sight.is_causal),
        **attributes,
    )


def _packed(
    graph: GraphBuilder,
    state: str,
    layers: Attention,
    inputs: PackedInputs,
    device: DeviceInputs,
) -> str:
    bias = layers.score_bias
    if layers.has_plain_heads and layers.relate is None:
        # One product, and its bias by the kernel that takes queries, keys and values apart.
        query, shift = _interleaved(graph, state, layers)
        parts = [query, "", "", shift]
    else:
        first = [layers.query, layers.key, layers.value]
        projected = Floating().apply(graph, state, first)
        if layers.relate is not None:
            bias = _related(graph, projected, layers, inputs)
        if not layers.has_plain_heads:
            projected = _heads(graph, projected, layers, inputs)
        parts = [*projected, ""]
    if layers.width % FUSED_STEP:
        graph.metadata[READS_OFFSETS] = "1"
    if layers.relate is not None:
        graph.metadata[IS_PADDED] = "1"
    attended = [*parts, device.token_offset, device.cumulative_lengths]
    return graph.op(
        "PackedMultiHeadAttention",
        *attended,
        *([] if bias is None else [bias]),
        domain=MICROSOFT,
        num_heads=layers.heads,
        scale=layers.factor,
    )


def _interleaved(graph: GraphBuilder, state: str, layers: Attention) -> tuple[str, str]:
    """Queries, keys and values of each head side by side, (T, heads, 3, d), and their biases one after the other."""
    parts = (layers.query, layers.key, layers.value)
    heads, width, size = layers.heads, layers.width, len(layers.query.weight)
    weights = np.stack([part.weight.reshape(size, heads, width) for part in parts], axis=2)
    name = layers.query.name
    product = graph.op(
        "MatMul", state, graph.weight(f"{name}.and_key_value", weights.reshape(size, -1))
    )
    shape = graph.weight(f"interleaved_{heads}_{width}", np.array([-1, heads, 3, width], np.int64))
    biases = np.concatenate([part.bias for part in parts])
    shift = graph.weight(f"{name}.and_key_value.bias", biases) if biases.any() else ""
    return graph.op("Reshape", product, shape), shift


def _merged(graph: GraphBuilder, state: str, parts: list[Linear]) -> str:
    """Layers side by side, as one product: (T, the sum of their widths)."""
    whole = Linear(
        f"{parts[0].name}.and_key_value",
        np.concatenate([part.weight for part in parts], axis=1),
        np.concatenate([part.bias for part in parts]),
    )
    return Floating().apply(graph, state, [whole])[0]


def _heads(
    graph: GraphBuilder, projected: list[str], layers: Attention, inputs: PackedInputs
) -> list[str]:
    """Normed, turned and spread over the query heads, each (T, heads · d)."""
    query, key, value = normed_heads(graph, projected, layers)
    if layers.turn is not None:
        query = _turned(graph, query, layers.heads, layers, inputs)
        key = _turned(graph, key, layers.shared, layers, inputs)
    wide = graph.weight("flat_heads", np.array([-1, layers.heads * layers.width], np.int64))
    key, value = (for_each_query(graph, part, layers) for part in (key, value))
    return [graph.op("Reshape", part, wide) for part in (query, key, value)]


def _turned(
    graph: GraphBuilder, heads: str, count: int, layers: Attention, inputs: PackedInputs
) -> str:
    """Heads (T, n, d), turned by one kernel."""
    if layers.turn is None:
        return heads
    rows = graph.weight(f"one_row_{count}", np.array([1, -1, count * layers.width], np.int64))
    leading = graph.weight("leading_axis", np.array([0], np.int64))
    turned = graph.op(
        "RotaryEmbedding",
        graph.op("Reshape", heads, rows),
        graph.op("Unsqueeze", inputs.positions, leading),
        *_tables(graph, layers.turn),
        domain=MICROSOFT,
        num_heads=count,
        is_packed_batching=1,
    )
    return graph.split_heads(turned, count, layers.width)


def _tables(graph: GraphBuilder, turn: Turn) -> list[str]:
    """Cosines and sines of every position, (longest, d / 2)."""
    angles = np.outer(np.arange(turn.longest), turn.frequencies.values.astype(np.float64))
    factor = turn.frequencies.factor
    return [
        graph.weight(f"{kind.__name__}{turn.name}", (kind(angles) * factor).astype(np.float32))
        for kind in (np.cos, np.sin)
    ]


def _related(
    graph: GraphBuilder, projected: list[str], layers: Attention, inputs: PackedInputs
) -> str:
    """What queries and keys make of their positions, scaled: (B, heads, S, S)."""
    if layers.relate is None:
        raise ValueError("nothing to relate")
    shape = graph.weight("padded_heads", np.array([0, 0, layers.heads, layers.width], np.int64))
    query, key = (
        graph.op("Reshape", graph.op("Gather", part, inputs.gather, axis=0), shape)
        for part in projected[:2]
    )
    query = graph.op("Transpose", query, perm=[0, 2, 1, 3])
    key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
    factor = graph.weight("score_factor", np.array(layers.factor, np.float32))
    return graph.op("Mul", layers.relate(query, key), factor)
