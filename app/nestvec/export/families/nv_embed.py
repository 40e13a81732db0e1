"""NV-Embed (arXiv:2405.17428): a Mistral with bidirectional attention, and latent attention before the pooling.

Each token attends to a trained table of latents, then goes through a gated MLP; the mean of that is the vector (section
3.1). As the latents are fixed, so are the keys and values that are made of them: they are computed at export.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import part, positive
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.families.pre_norm import Decoder
from nestvec.export.graph.types import Float32Array
from nestvec.export.layers.arithmetic import Floating, Linear
from nestvec.export.layers.blocks import Encoder, activation, layer_norm, normed_rows
from nestvec.export.layers.build_context import BuildContext

TEXT_CONFIG: Final = "text_config"
LATENT_CONFIG: Final = "latent_attention_config"
PREFIX: Final = "latent_attention_model."
CROSS_ATTENTION: Final = f"{PREFIX}cross_attend_blocks.0"
MLP: Final = f"{PREFIX}cross_attend_blocks.1"
# The default of torch's LayerNorm.
NORM_EPSILON: Final = 1e-5


@dataclass(frozen=True, slots=True)
class NvEmbed:
    """The family.

    Attributes:
        decoder: The family of the decoder below the latent attention.
        prefix: What checkpoints with a head put before all names.
    """

    decoder: Decoder
    prefix: str = ""

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        dimensions = self.decoder.dimensions(part(config, TEXT_CONFIG))
        _LatentConfig.read(config, dimensions.hidden_size)
        return dimensions

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add decoder and latent attention to a graph: ids [T] to token states [T, H] after each layer.

        The last state is behind the latent attention.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        encoder = self.decoder.build(part(config, TEXT_CONFIG), context)
        size = encoder.hidden_size
        latent_config = _LatentConfig.read(config, size)
        final_norm = encoder.finalize

        def latent_attention(state: str) -> str:
            attended = _cross_attention(context, state, size, latent_config)
            state = context.graph.op("Add", attended, state)
            return context.graph.op("Add", _mlp(context, state, size), state)

        def finalize(state: str) -> str:
            return latent_attention(state if final_norm is None else final_norm(state))

        states = (*encoder.states[:-1], latent_attention(encoder.states[-1]))
        return Encoder(states, size, finalize)


NV_EMBED: Final = NvEmbed(Decoder(is_causal=False))


@dataclass(frozen=True, slots=True)
class _LatentConfig:
    """Sizes of the latent attention.

    Attributes:
        latents: Number of latents.
        heads: Number of heads.
        head_width: d.
    """

    latents: int
    heads: int
    head_width: int

    @classmethod
    def read(cls, config: Mapping[str, Any], size: int) -> "_LatentConfig":
        """Read the sizes; states of the latents must be as wide as the decoder's, H.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        latent = part(config, LATENT_CONFIG)
        for name in ("hidden_dim", "latent_dim"):
            if positive(latent, name) != size:
                raise FormatError(f"config.json: '{LATENT_CONFIG}.{name}' must be {size}")
        return cls(
            positive(latent, "num_latents_value"),
            positive(latent, "num_cross_heads"),
            positive(latent, "cross_dim_head"),
        )


def _cross_attention(context: BuildContext, state: str, size: int, config: _LatentConfig) -> str:
    """Add the attention of tokens to the latents, [T, H] to [T, H]."""
    graph, weights = context.graph, context.weights
    heads, width = config.heads, config.head_width
    inner = heads * width
    keys, values = _keys_and_values(context, size, config)
    query_weight = weights.get(f"{CROSS_ATTENTION}.fn.to_q.weight", (inner, size)).T
    scale, bias = _norm_tensors(context, f"{CROSS_ATTENTION}.norm", size)
    normed = layer_norm(graph, state, f"{CROSS_ATTENTION}.norm", scale, bias, NORM_EPSILON)
    queries = _linear(context, normed, "latent.query", query_weight / math.sqrt(width))
    queries = graph.split_heads(queries, heads, width)  # [T, heads, d]
    queries = graph.op("Transpose", queries, perm=[1, 0, 2])
    key_table = graph.weight("latent.keys", np.ascontiguousarray(keys.transpose(1, 2, 0)))
    scores = graph.op("MatMul", queries, key_table)  # [heads, T, latents]
    shares = graph.op("Softmax", scores, axis=-1)
    value_table = graph.weight("latent.values", np.ascontiguousarray(values.transpose(1, 0, 2)))
    mixed = graph.op("Transpose", graph.op("MatMul", shares, value_table), perm=[1, 0, 2])
    flat = graph.op("Reshape", mixed, graph.weight("latent.flat", np.array([-1, inner], np.int64)))
    output_weight = weights.get(f"{CROSS_ATTENTION}.fn.to_out.weight", (size, inner)).T
    return _linear(context, flat, "latent.output", output_weight)


def _keys_and_values(
    context: BuildContext, size: int, config: _LatentConfig
) -> tuple[Float32Array, Float32Array]:
    """Compute the latents' keys and values at export, each [latents, heads, d]."""
    weights, inner = context.weights, config.heads * config.head_width
    latents = weights.get(f"{PREFIX}latents", (config.latents, size))
    scale, bias = _norm_tensors(context, f"{CROSS_ATTENTION}.norm_context", size)
    normed = normed_rows(latents, scale, bias, NORM_EPSILON)
    both = normed @ weights.get(f"{CROSS_ATTENTION}.fn.to_kv.weight", (2 * inner, size)).T
    keys, values = (
        part.reshape(config.latents, config.heads, config.head_width)
        for part in np.split(both, 2, axis=1)
    )
    return keys, values


def _mlp(context: BuildContext, state: str, size: int) -> str:
    """Add a gated MLP, whose gate is the second half of its first layer, [T, H] to [T, H]."""
    graph, weights = context.graph, context.weights
    scale, bias = _norm_tensors(context, f"{MLP}.norm", size)
    normed = layer_norm(graph, state, f"{MLP}.norm", scale, bias, NORM_EPSILON)
    inner = weights.shape(f"{MLP}.fn.net.0.weight")[0] // 2
    both = _linear(
        context,
        normed,
        "latent.wide",
        weights.get(f"{MLP}.fn.net.0.weight", (2 * inner, size)).T,
        weights.get(f"{MLP}.fn.net.0.bias", (2 * inner,)),
    )
    value, gate = graph.split(both, 2)
    gated = graph.op("Mul", value, activation(graph, gate, "gelu"))
    return _linear(
        context,
        gated,
        "latent.narrow",
        weights.get(f"{MLP}.fn.net.2.weight", (size, inner)).T,
        weights.get(f"{MLP}.fn.net.2.bias", (size,)),
    )


def _linear(
    context: BuildContext,
    value: str,
    name: str,
    weight: Float32Array,
    bias: Float32Array | None = None,
) -> str:
    """Add x W + b in floats whatever the precision: it is one layer's work among dozens."""
    if bias is None:
        bias = np.zeros(weight.shape[1], np.float32)
    return Floating().apply(context.graph, value, [Linear(name, weight, bias)])[0]


def _norm_tensors(context: BuildContext, name: str, size: int) -> tuple[Float32Array, Float32Array]:
    """Read scale and bias of a layer norm, each [H]."""
    weights = context.weights
    return weights.get(f"{name}.weight", (size,)), weights.get(f"{name}.bias", (size,))
