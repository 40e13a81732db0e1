"""Self-attention on CUDA: packed, by ONNX Runtime's contrib ops.

PackedMultiHeadAttention takes queries, keys and values of all inputs end to end and the cumulative lengths; with no
bias on scores it is FlashAttention-2 (arXiv:2307.08691). It is not causal, has no window, rotates no heads, and knows
float16 and float32. PagedAttention can do all of that, in float16 and bfloat16; it writes keys and values to pages
first, as servers of generating models need it. All layers of a graph write to the same pages, one after the other.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from dataclasses import replace
from typing import Final

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.graph.builder import FloatType, GraphBuilder
from nestvec.export.graph.inputs import DeviceAttention, DeviceInputs, PackedInputs
from nestvec.export.graph.types import CONTRIB_DOMAIN
from nestvec.export.layers.arithmetic import Floating, Linear
from nestvec.export.layers.attention_spec import (
    AttentionSpec,
    capped,
    repeat_kv,
    split_and_norm_heads,
)
from nestvec.export.layers.rotary_embedding import RotaryEmbedding

# Tokens of a page that the flash kernel wants, by the greatest width of a head.
PAGE_TOKENS: Final = ((64, 256), (128, 128), (256, 64))
# Keys of the graph's metadata: tokens, heads and width of a page; whether a kernel reads the values of
# `token_offset`; whether scores of each input have a bias of their own, B * S * S cells.
PAGES: Final = "nestvec.pages"
READS_OFFSETS: Final = "nestvec.reads_offsets"
IS_PADDED: Final = "nestvec.is_padded"
# PackedMultiHeadAttention has no fused kernel for heads whose width is no multiple of this.
FUSED_WIDTH_STEP: Final = 8
# PagedAttention takes only heads whose width is a multiple of this.
PAGED_WIDTH_STEP: Final = 16


def device_attention(
    graph: GraphBuilder, state: str, spec: AttentionSpec, inputs: PackedInputs
) -> str:
    """Add attention from packed states [T, H] to attended states [T, heads * d], before the output projection.

    Raises:
        FormatError: No kernel computes it in the graph's dtype.
    """
    device = inputs.device
    if device is None:
        raise ValueError("not a device graph")
    if _uses_pages(graph, spec, device.attention):
        return _paged_attention(graph, state, spec, device)
    if graph.float_type is FloatType.BF16:
        raise FormatError(
            "precision bf16: on a GPU this architecture's attention has no kernel for it; use fp16 or fp32"
        )
    return _packed_attention(graph, state, spec, inputs, device)


def with_biases_folded(spec: AttentionSpec) -> AttentionSpec:
    """Return attention that gives the same without the biases that it does not need.

    The shares that a token gives to all keys add up to one, so a bias of values comes out as it is and can be added by
    the output projection. A bias of keys adds the same to all scores of a query, which softmax does not see; not where
    keys are rotated or normed, or meet more than queries.
    """
    value, output = spec.value, spec.output
    repeats = spec.heads // spec.kv_head_count
    by_head = np.repeat(value.bias.reshape(spec.kv_head_count, -1), repeats, axis=0)
    output = replace(output, bias=output.bias + by_head.reshape(-1) @ output.weight)
    value = replace(value, bias=np.zeros_like(value.bias))
    key = spec.key
    if spec.has_plain_heads and spec.packed_scores is None:
        key = replace(key, bias=np.zeros_like(key.bias))
    return replace(spec, key=key, value=value, output=output)


def page_tokens(head_width: int) -> int:
    """Tokens of a page for heads of this width; 0 where no kernel takes such heads."""
    return next((tokens for max_width, tokens in PAGE_TOKENS if head_width <= max_width), 0)


def _uses_pages(graph: GraphBuilder, spec: AttentionSpec, attention: DeviceAttention) -> bool:
    """Whether PagedAttention can and should compute it."""
    # PagedAttention's window is on one side only.
    has_possible_window = spec.mask.is_causal or not spec.mask.window
    is_possible = (
        graph.float_type is not FloatType.FP32
        and spec.bias is None
        and spec.packed_scores is None
        and has_possible_window
        and spec.head_width % PAGED_WIDTH_STEP == 0
        and page_tokens(spec.head_width) > 0
    )
    saves_work = not spec.has_plain_heads or spec.mask.is_causal
    is_wanted = attention is DeviceAttention.PAGED and saves_work
    return is_possible and (is_wanted or graph.float_type is FloatType.BF16)


def _paged_attention(
    graph: GraphBuilder, state: str, spec: AttentionSpec, device: DeviceInputs
) -> str:
    tokens = page_tokens(spec.head_width)
    graph.metadata[PAGES] = f"{tokens},{spec.kv_head_count},{spec.head_width}"
    shape = ("pages", tokens, spec.kv_head_count, spec.head_width)
    pages = [
        graph.ensure_input(name, graph.float_type, shape) for name in ("key_pages", "value_pages")
    ]
    layers = [spec.query, spec.key, spec.value]
    if spec.norms is not None and spec.norms.spans_heads:
        query, key, value = Floating().apply(graph, state, layers)
        normed = spec.norms.apply(graph, query, key)
        query_key_value = graph.op("Concat", *normed, value, axis=-1)
    else:
        query_key_value = _merged_product(graph, state, layers)
    rotary_tables = ["", ""] if spec.rotary is None else _rotary_tables(graph, spec.rotary)
    norms = ["", ""]
    attributes: dict[str, float | int] = {}
    if spec.norms is not None and not spec.norms.spans_heads:
        name = spec.norms.name
        norms = [
            graph.weight(f"{name}.q_norm.weight", spec.norms.query),
            graph.weight(f"{name}.k_norm.weight", spec.norms.key),
        ]
        attributes["qk_norm_epsilon"] = spec.norms.epsilon
    if spec.mask.window:
        attributes["local_window_size"] = spec.mask.window
    if spec.score_cap is not None:
        attributes["softcap"] = spec.score_cap
    return graph.op(
        "PagedAttention",
        *(query_key_value, "", "", *pages),
        *(device.cumulative_lengths, device.past_lengths, device.block_table),
        *(*rotary_tables, "", "", *norms, "", ""),
        device.bounds,
        domain=CONTRIB_DOMAIN,
        num_heads=spec.heads,
        kv_num_heads=spec.kv_head_count,
        scale=spec.score_scale,
        do_rotary=int(spec.rotary is not None),
        is_causal=int(spec.mask.is_causal),
        **attributes,
    )


def _packed_attention(
    graph: GraphBuilder,
    state: str,
    spec: AttentionSpec,
    inputs: PackedInputs,
    device: DeviceInputs,
) -> str:
    bias = spec.score_bias
    # Apart and without a bias of its own the kernel reads the projections where they are; given as one product, or with
    # a bias, they would be written out once more.
    projected = Floating().apply(graph, state, [spec.query, spec.key, spec.value])
    if spec.packed_scores is not None:
        bias = spec.packed_scores(*projected[:2])
    if not spec.has_plain_heads:
        projected = _heads(graph, projected, spec, inputs)
    if spec.score_cap is not None:
        change = _cap_bias(graph, projected, spec, inputs)
        bias = change if bias is None else graph.op("Add", change, bias)
    if spec.head_width % FUSED_WIDTH_STEP:
        graph.metadata[READS_OFFSETS] = "1"
    if spec.packed_scores is not None or spec.score_cap is not None:
        graph.metadata[IS_PADDED] = "1"
    return graph.op(
        "PackedMultiHeadAttention",
        *projected,
        "",
        device.token_offset,
        device.cumulative_lengths,
        *([] if bias is None else [bias]),
        domain=CONTRIB_DOMAIN,
        num_heads=spec.heads,
        scale=spec.score_scale,
    )


def _merged_product(graph: GraphBuilder, state: str, layers: list[Linear]) -> str:
    """Add layers side by side as one product: [T, the sum of their widths]."""
    merged = Linear(
        f"{layers[0].name}.and_key_value",
        np.concatenate([layer.weight for layer in layers], axis=1),
        np.concatenate([layer.bias for layer in layers]),
    )
    return Floating().apply(graph, state, [merged])[0]


def _heads(
    graph: GraphBuilder, projected: list[str], spec: AttentionSpec, inputs: PackedInputs
) -> list[str]:
    """Make queries, keys and values, each [T, heads * d], of projections: normed, rotated and repeated."""
    query, key, value = split_and_norm_heads(graph, projected, spec)
    if spec.rotary is not None:
        query = _rotated(graph, query, spec.heads, spec.rotary, inputs)
        key = _rotated(graph, key, spec.kv_head_count, spec.rotary, inputs)
    flat = graph.weight("flat_heads", np.array([-1, spec.heads * spec.head_width], np.int64))
    key, value = (repeat_kv(graph, part, spec) for part in (key, value))
    return [graph.op("Reshape", part, flat) for part in (query, key, value)]


def _cap_bias(
    graph: GraphBuilder, heads: list[str], spec: AttentionSpec, inputs: PackedInputs
) -> str:
    """Add what makes capped scores of scaled ones when it is added to them: [B, heads, S, S]."""
    shape = graph.weight("padded_heads", np.array([0, 0, spec.heads, spec.head_width], np.int64))
    query, key = (
        graph.op("Reshape", graph.op("Gather", part, inputs.gather, axis=0), shape)
        for part in heads[:2]
    )
    scale = graph.weight("score_factor", np.array(spec.score_scale, np.float32))
    query = graph.op("Mul", graph.op("Transpose", query, perm=[0, 2, 1, 3]), scale)
    scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 2, 3, 1]))
    return graph.op("Sub", capped(graph, scores, spec), scores)


def _rotated(
    graph: GraphBuilder, heads: str, count: int, rotary: RotaryEmbedding, inputs: PackedInputs
) -> str:
    """Rotate heads [T, n, d] by one kernel."""
    width = 2 * len(rotary.frequencies.values)
    one_row = graph.weight(f"one_row_{count}", np.array([1, -1, count * width], np.int64))
    leading = graph.weight("leading_axis", np.array([0], np.int64))
    rotated = graph.op(
        "RotaryEmbedding",
        graph.op("Reshape", heads, one_row),
        graph.op("Unsqueeze", inputs.positions, leading),
        *_rotary_tables(graph, rotary),
        domain=CONTRIB_DOMAIN,
        num_heads=count,
        is_packed_batching=1,
    )
    return graph.split_heads(rotated, count, width)


def _rotary_tables(graph: GraphBuilder, rotary: RotaryEmbedding) -> list[str]:
    """Add cosines and sines of all positions, each [max_positions, d / 2]."""
    angles = np.outer(np.arange(rotary.max_positions), rotary.frequencies.values.astype(np.float64))
    scale = rotary.frequencies.scale
    return [
        graph.weight(f"{name}{rotary.name}", (table * scale).astype(np.float32))
        for name, table in (("cos", np.cos(angles)), ("sin", np.sin(angles)))
    ]
