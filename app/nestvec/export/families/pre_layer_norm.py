"""Models with a layer norm before each part and a plain MLP: M2M-100's encoder and BLOOM.

Source: M2M-100 (arXiv:2010.11125), whose encoder is SONAR's (arXiv:2308.11466) and NLLB's; BLOOM (arXiv:2211.05100);
tensor names as in transformers' modeling_m2m_100.py and modeling_bloom.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import boolean, check_fixed, positive, positive_number
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.types import Float32Array
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_spec import AttentionSpec
from nestvec.export.layers.blocks import Encoder, feed_forward, layer_norm
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.relative_positions import PositionTerms, alibi_terms

# The default of torch's LayerNorm.
NORM_EPSILON: Final = 1e-5
BASE: Final = 10_000.0


@dataclass(frozen=True, slots=True)
class PreLayerNormConfig:
    """What the graph depends on.

    Attributes:
        max_positions: How many tokens the model takes; None where config.json does not say, as positions are distances.
        embedding_scale: What word embeddings are multiplied by.
        first_position: The position of the first token, where positions are sines.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_positions: int | None
    layer_norm_eps: float
    hidden_act: str
    embedding_scale: float = 1.0
    first_position: int = 0


@dataclass(frozen=True, slots=True)
class PreLayerNorm:
    """A family; tensors of a layer are named below the layer's name.

    Attributes:
        prefix: Under which checkpoints with a head keep the model.
        prefixes: Other prefixes to try.
        read: Takes the fields that the graph depends on out of a config.json.
        words: Names of the word embeddings, of which a checkpoint has one; the first is below the same prefix as the
            layers, others are whole names.
        embedding_norm: The norm behind the embeddings; "" for none.
        layer: A layer, with its number in braces.
        attention_norm: The norm before attention.
        projections: Queries, keys and values; one name where one tensor has them side by side for each head.
        output: Attention's output layer.
        mlp_norm: The norm before the MLP.
        mlp_up: The MLP's first layer.
        mlp_down: The MLP's last layer.
        final_norm: The norm behind the last layer.
        has_sines: Whether positions are sines and cosines added to embeddings (arXiv:1706.03762, section 3.5);
            otherwise attention is causal, with a penalty that grows with the distance (ALiBi, arXiv:2108.12409).
    """

    prefix: str
    prefixes: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], PreLayerNormConfig]
    words: tuple[str, ...]
    layer: str
    attention_norm: str
    projections: tuple[str, ...]
    output: str
    mlp_norm: str
    mlp_up: str
    mlp_down: str
    final_norm: str
    embedding_norm: str = ""
    has_sines: bool = False

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        sizes = self.read(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_positions)

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the model to a graph: ids [T] to token states [T, H] after each layer, the last one normed.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        sizes = self.read(config)
        graph, inputs = context.graph, context.inputs
        probe = f"{self.final_norm}.weight"
        prefix = common_prefix(context.weights, probe, ("", self.prefix, *self.prefixes))
        builder = _Builder(context, prefix, sizes, self)
        embedded = context.embed(builder.words())
        terms = PositionTerms()
        if self.has_sines:
            table = sines(sizes.max_positions or 0, sizes.hidden_size, sizes.first_position)
            rows = graph.op("Gather", graph.weight("places", table), inputs.positions, axis=0)
            embedded = graph.op("Add", embedded, rows)
        else:
            terms = alibi_terms(graph, inputs, sizes.num_attention_heads, is_causal=True)
        if self.embedding_norm:
            embedded = builder.norm(embedded, self.embedding_norm)
        layers = [
            partial(builder.layer, name=self.layer.format(number), terms=terms)
            for number in range(sizes.num_hidden_layers)
        ]
        states = context.stack(embedded, layers, sizes.hidden_size)
        final_norm = partial(builder.norm, name=self.final_norm)
        return Encoder.finalized(states, sizes.hidden_size, final_norm)


@dataclass(frozen=True, slots=True)
class _Builder:
    """Adds layers to a graph."""

    context: BuildContext
    prefix: str
    sizes: PreLayerNormConfig
    family: PreLayerNorm

    def words(self) -> Float32Array:
        """Read the word embeddings, [V, H], scaled."""
        first, *others = self.family.words
        names = (self.prefix + first, *others)
        name = next((name for name in names if name in self.context.weights), names[0])
        shape = (self.sizes.vocab_size, self.sizes.hidden_size)
        table = self.context.weights.get(name, shape)
        return table * np.float32(self.sizes.embedding_scale)

    def layer(self, state: str, name: str, terms: PositionTerms) -> str:
        """Add a layer, [T, H] to [T, H]."""
        graph, family = self.context.graph, self.family
        normed = self.norm(state, f"{name}.{family.attention_norm}")
        state = graph.op("Add", state, self._attention(normed, name, terms))
        normed = self.norm(state, f"{name}.{family.mlp_norm}")
        inner, size = self.sizes.intermediate_size, self.sizes.hidden_size
        first = self._linear(f"{name}.{family.mlp_up}", inner, size)
        last = self._linear(f"{name}.{family.mlp_down}", size, inner)
        projected = feed_forward(self.context, normed, [first], last, self.sizes.hidden_act)
        return graph.op("Add", state, projected)

    def norm(self, state: str, name: str) -> str:
        """Add a layer norm."""
        size, full = self.sizes.hidden_size, f"{self.prefix}{name}"
        scale = self.context.weights.get(f"{full}.weight", (size,))
        bias = self.context.weights.get(f"{full}.bias", (size,))
        return layer_norm(self.context.graph, state, name, scale, bias, self.sizes.layer_norm_eps)

    def _attention(self, state: str, name: str, terms: PositionTerms) -> str:
        size, family = self.sizes.hidden_size, self.family
        projections = [f"{name}.{part}" for part in family.projections]
        if len(projections) == 1:
            query, key, value = self._interleaved(projections[0])
        else:
            query, key, value = (self._linear(part, size, size) for part in projections)
        spec = AttentionSpec(
            query,
            key,
            value,
            self._linear(f"{name}.{family.output}", size, size),
            self.sizes.num_attention_heads,
            bias=terms.bias,
            bias_rows=terms.bias_rows,
        )
        return self_attention(self.context, state, spec)

    def _interleaved(self, name: str) -> list[Linear]:
        """Read queries, keys and values of one tensor, which has those of each head side by side."""
        size, heads = self.sizes.hidden_size, self.sizes.num_attention_heads
        merged = self._linear(name, 3 * size, size)
        weight = merged.weight.reshape(size, heads, 3, size // heads)
        bias = merged.bias.reshape(heads, 3, size // heads)
        return [
            Linear(f"{name}.{part}", weight[:, :, part].reshape(size, size), bias[:, part].ravel())
            for part in range(3)
        ]

    def _linear(self, name: str, rows: int, columns: int) -> Linear:
        return self.context.linear(name, rows, columns, prefix=self.prefix, has_bias=True)


def sines(count: int, width: int, first: int) -> Float32Array:
    """Compute sines, then cosines, of positions from `first` on: [count, width], zeros in an odd last column."""
    half = width // 2
    steps = np.exp(
        np.arange(half, dtype=np.float32) * np.float32(-math.log(BASE) / max(half - 1, 1))
    )
    angles = np.arange(first, first + count, dtype=np.float32)[:, None] * steps[None]
    table = np.zeros((count, width), np.float32)
    table[:, : 2 * half] = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return table


def _checked(sizes: PreLayerNormConfig) -> PreLayerNormConfig:
    if sizes.hidden_size % sizes.num_attention_heads:
        raise FormatError("config.json: heads must divide the hidden size")
    return sizes


def _read_m2m(config: Mapping[str, Any]) -> PreLayerNormConfig:
    """Take the encoder's fields out of a config.json."""
    size = positive(config, "d_model")
    padding = config.get("pad_token_id", 1)
    if not isinstance(padding, int) or isinstance(padding, bool) or padding < 0:
        raise FormatError("config.json: 'pad_token_id' must be an integer")
    scales = boolean(config, "scale_embedding", default=True)
    return _checked(
        PreLayerNormConfig(
            vocab_size=positive(config, "vocab_size"),
            hidden_size=size,
            intermediate_size=positive(config, "encoder_ffn_dim"),
            num_hidden_layers=positive(config, "encoder_layers"),
            num_attention_heads=positive(config, "encoder_attention_heads"),
            max_positions=positive(config, "max_position_embeddings"),
            layer_norm_eps=NORM_EPSILON,
            hidden_act=str(config.get("activation_function", "relu")),
            embedding_scale=math.sqrt(size) if scales else 1.0,
            first_position=padding + 1,
        )
    )


def _read_bloom(config: Mapping[str, Any]) -> PreLayerNormConfig:
    """Take the fields out of a config.json, which may name three of them in two ways."""

    def either(name: str, other: str) -> int:
        return positive(config, name if config.get(name) is not None else other)

    check_fixed(config, {"apply_residual_connection_post_layernorm": False})
    size = either("n_embed", "hidden_size")
    return _checked(
        PreLayerNormConfig(
            vocab_size=positive(config, "vocab_size"),
            hidden_size=size,
            intermediate_size=4 * size,
            num_hidden_layers=either("n_layer", "num_hidden_layers"),
            num_attention_heads=either("n_head", "num_attention_heads"),
            max_positions=None
            if config.get("seq_length") is None
            else positive(config, "seq_length"),
            layer_norm_eps=positive_number(config, "layer_norm_epsilon", NORM_EPSILON),
            hidden_act="gelu_pytorch_tanh",
        )
    )


M2M_100: Final = PreLayerNorm(
    "model.",
    ("encoder.", "model.encoder."),
    _read_m2m,
    words=("embed_tokens.weight", "shared.weight", "model.shared.weight"),
    layer="layers.{}",
    attention_norm="self_attn_layer_norm",
    projections=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    output="self_attn.out_proj",
    mlp_norm="final_layer_norm",
    mlp_up="fc1",
    mlp_down="fc2",
    final_norm="layer_norm",
    has_sines=True,
)
BLOOM: Final = PreLayerNorm(
    "transformer.",
    (),
    _read_bloom,
    words=("word_embeddings.weight",),
    embedding_norm="word_embeddings_layernorm",
    layer="h.{}",
    attention_norm="input_layernorm",
    projections=("self_attention.query_key_value",),
    output="self_attention.dense",
    mlp_norm="post_attention_layernorm",
    mlp_up="mlp.dense_h_to_4h",
    mlp_down="mlp.dense_4h_to_h",
    final_norm="ln_f",
)
