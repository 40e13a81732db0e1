"""Encoders with BERT's order of norms and rotary positions: one builder, and tables of sizes and names.

NomicBERT, GTE and Jina's third model are such encoders; each has checkpoints with the names of its authors' own code
and with those of transformers 5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.weights import Weights, common_prefix
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_spec import AttentionSpec
from nestvec.export.layers.blocks import Encoder, feed_forward, layer_norm
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.mixture_of_experts import Mixture
from nestvec.export.layers.rotary_embedding import RotaryEmbedding, rotary_embedding
from nestvec.export.layers.rotary_frequencies import RotaryFrequencies, read_frequencies

WORD_EMBEDDINGS: Final = "embeddings.word_embeddings.weight"
TYPE_EMBEDDINGS: Final = "embeddings.token_type_embeddings.weight"
# Prefixes of checkpoints with a head, tried after a family's own.
PREFIXES: Final = ("bert.", "model.", "roberta.", "new.")


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """Experts in place of MLPs.

    Attributes:
        count: Number of experts.
        chosen: How many of them each token goes through.
        every: Of so many layers the second has experts.
    """

    count: int
    chosen: int
    every: int


@dataclass(frozen=True, slots=True)
class RotaryEncoderConfig:
    """What the graph depends on.

    Attributes:
        type_vocab_size: Rows of the token type embeddings; 0 for a family without them.
        is_gated: Whether the MLP is gated.
        has_projection_bias: Whether attention's layers have biases.
        has_mlp_up_bias: Whether the MLP's first layer or layers have biases.
        has_mlp_down_bias: Whether the MLP's last layer has a bias.
        experts: How the experts of some layers are; None where all layers have MLPs.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_positions: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_act: str
    frequencies: RotaryFrequencies
    is_gated: bool = True
    has_projection_bias: bool = False
    has_mlp_up_bias: bool = False
    has_mlp_down_bias: bool = False
    experts: ExpertsConfig | None = None


@dataclass(frozen=True, slots=True)
class TensorNames:
    """Names of a checkpoint's tensors, without `.weight`; those of a layer are below the layer's name.

    Attributes:
        embedding_norm: The norm behind the embeddings.
        layer: A layer, with its number in braces.
        output: Attention's output layer.
        mlp_down: The MLP's last layer.
        attention_norm: The norm behind attention.
        mlp_norm: The norm behind the MLP.
        mlp_up: The MLP's first layer, in a gated MLP the one that is not activated.
        mlp_gate: A gated MLP's first layer that is activated.
        mlp_up_gate: Both of a gated MLP in one, the gate second; "" where each is a tensor of its own.
        qkv: Queries, keys and values in one; "" where each is a tensor of its own.
        projection: Queries, keys and values where each is a tensor of its own, "q", "k" or "v" in braces.
    """

    embedding_norm: str
    layer: str
    output: str
    mlp_down: str
    attention_norm: str
    mlp_norm: str
    mlp_up: str = ""
    mlp_gate: str = ""
    mlp_up_gate: str = ""
    qkv: str = ""
    projection: str = ""


TRANSFORMERS_NAMES: Final = TensorNames(
    embedding_norm="embeddings.LayerNorm",
    layer="layers.{}",
    output="self_attn.o_proj",
    mlp_gate="mlp.gate_proj",
    mlp_up="mlp.up_proj",
    mlp_down="mlp.down_proj",
    attention_norm="post_attention_layernorm",
    mlp_norm="post_mlp_layernorm",
    projection="self_attn.{}_proj",
)


@dataclass(frozen=True, slots=True)
class RotaryEncoder:
    """A family.

    Attributes:
        prefix: Under which checkpoints with a head keep the encoder.
        read: Takes the fields that the graph depends on out of a config.json.
        names: Sets of names that checkpoints may have.
    """

    prefix: str
    read: Callable[[Mapping[str, Any]], RotaryEncoderConfig]
    names: tuple[TensorNames, ...]

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        sizes = self.read(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_positions)

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the encoder to a graph: ids [T] to token states [T, H] after each layer.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        sizes = self.read(config)
        weights = context.weights
        prefix = common_prefix(weights, WORD_EMBEDDINGS, ("", self.prefix, *PREFIXES))
        builder = _Builder(context, prefix, sizes, self._names_in(weights, prefix))
        token_types = None
        words = weights.get(prefix + WORD_EMBEDDINGS, (sizes.vocab_size, sizes.hidden_size))
        if sizes.type_vocab_size:
            token_types = weights.get(
                prefix + TYPE_EMBEDDINGS, (sizes.type_vocab_size, sizes.hidden_size)
            )
        embedded = builder.norm(context.embed(words, token_types), builder.names.embedding_norm)
        rotary = rotary_embedding(
            context.graph, context.inputs, sizes.frequencies, sizes.max_positions
        )
        layers = [
            partial(builder.layer, number=number, rotary=rotary)
            for number in range(sizes.num_hidden_layers)
        ]
        states = context.stack(embedded, layers, sizes.hidden_size)
        return Encoder(tuple(states), sizes.hidden_size)

    def _names_in(self, weights: Weights, prefix: str) -> TensorNames:
        """The set of names of which the checkpoint has most tensors."""

        def count(names: TensorNames) -> int:
            layer = f"{prefix}{names.layer.format(0)}."
            tensors = [names.output, names.mlp_down, names.attention_norm, names.mlp_norm]
            tensors.append(names.mlp_up or names.mlp_up_gate)
            return sum(f"{layer}{name}.weight" in weights for name in tensors)

        return max(self.names, key=count)


def read_sizes(
    config: Mapping[str, Any],
    *,
    default_theta: float,
    **family_fields: Any,  # noqa: ANN401 - fields of several types
) -> RotaryEncoderConfig:
    """Take the fields that the graph depends on out of a config.json by transformers' names.

    Args:
        config: The file's content.
        default_theta: The family's rotary base, for a file without one.
        family_fields: Fields that the family fixes, or reads in its own way.

    Raises:
        FormatError: A field is missing, of the wrong type, or has a value that is not supported.
    """
    hidden_size, heads = positive(config, "hidden_size"), positive(config, "num_attention_heads")
    head_width = _head_width(hidden_size, heads)
    fields: dict[str, Any] = {
        "vocab_size": positive(config, "vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": positive(config, "intermediate_size"),
        "num_hidden_layers": positive(config, "num_hidden_layers"),
        "num_attention_heads": heads,
        "max_positions": positive(config, "max_position_embeddings"),
        "type_vocab_size": 0,
        "layer_norm_eps": positive_number(config, "layer_norm_eps", 1e-12),
        "hidden_act": str(config.get("hidden_act", "gelu")),
        "frequencies": read_frequencies(config, head_width, default_theta),
    }
    return RotaryEncoderConfig(**{**fields, **family_fields})


def _head_width(hidden_size: int, heads: int) -> int:
    """Width of a head.

    Raises:
        FormatError: Heads do not divide the states into even widths, of which the halves are rotated.
    """
    if hidden_size % heads or (hidden_size // heads) % 2:
        raise FormatError("config.json: heads must divide the hidden size into even widths")
    return hidden_size // heads


@dataclass(frozen=True, slots=True)
class _Builder:
    """Adds layers to a graph."""

    context: BuildContext
    prefix: str
    sizes: RotaryEncoderConfig
    names: TensorNames

    def layer(self, state: str, number: int, rotary: RotaryEmbedding) -> str:
        """Add a layer, [T, H] to [T, H]."""
        graph, names = self.context.graph, self.names
        name = names.layer.format(number)
        summed = graph.op("Add", self._attention(state, name, rotary), state)
        state = self.norm(summed, f"{name}.{names.attention_norm}")
        experts = self.sizes.experts
        if experts is not None and number % experts.every == 1:
            projected = self._mixture(name, experts).add(self.context, state)
        else:
            projected = self._mlp(state, name)
        summed = graph.op("Add", projected, state)
        return self.norm(summed, f"{name}.{names.mlp_norm}")

    def norm(self, state: str, name: str) -> str:
        """Add a layer norm."""
        size, full = self.sizes.hidden_size, f"{self.prefix}{name}"
        scale = self.context.weights.get(f"{full}.weight", (size,))
        bias = self.context.weights.get(f"{full}.bias", (size,))
        return layer_norm(self.context.graph, state, name, scale, bias, self.sizes.layer_norm_eps)

    def _attention(self, state: str, name: str, rotary: RotaryEmbedding) -> str:
        names, size, heads = self.names, self.sizes.hidden_size, self.sizes.num_attention_heads
        has_bias = self.sizes.has_projection_bias
        if names.qkv:
            query, key, value = self._split_linear(
                f"{name}.{names.qkv}", 3, size, size, has_bias=has_bias
            )
        else:
            query, key, value = (
                self._linear(
                    f"{name}.{names.projection.format(part)}", size, size, has_bias=has_bias
                )
                for part in "qkv"
            )
        output = self._linear(f"{name}.{names.output}", size, size, has_bias=has_bias)
        spec = AttentionSpec(query, key, value, output, heads, rotary=rotary)
        return self_attention(self.context, state, spec)

    def _mlp(self, state: str, name: str) -> str:
        sizes = self.sizes
        last = self._linear(
            f"{name}.{self.names.mlp_down}",
            sizes.hidden_size,
            sizes.intermediate_size,
            has_bias=sizes.has_mlp_down_bias,
        )
        return feed_forward(self.context, state, self._first_layers(name), last, sizes.hidden_act)

    def _mixture(self, name: str, experts: ExpertsConfig) -> Mixture:
        """Read a layer's experts by the names of NomicBERT's authors: each tensor holds those of all, one by one."""
        sizes, weights, name = self.sizes, self.context.weights, f"{name}.mlp"
        inner, size = sizes.intermediate_size, sizes.hidden_size
        up, down = (
            weights.get(f"{self.prefix}{name}.experts.mlp.{part}", (experts.count * inner, size))
            for part in ("w1", "w2")
        )
        nothing = {width: np.zeros(width, np.float32) for width in (inner, size)}
        pairs = zip(np.split(up, experts.count), np.split(down, experts.count), strict=True)
        layers = [
            (
                Linear(f"{name}.{number}.up", first.T, nothing[inner]),
                Linear(f"{name}.{number}.down", last, nothing[size]),
            )
            for number, (first, last) in enumerate(pairs)
        ]
        router = weights.get(f"{self.prefix}{name}.router.layer.weight", (experts.count, size))
        bias = weights.get(f"{self.prefix}{name}.experts.bias", (size,))
        return Mixture(name, router.T, layers, bias, experts.chosen, sizes.hidden_act)

    def _first_layers(self, name: str) -> list[Linear]:
        """Read the MLP's first layer, or both of a gated one, the activated one first."""
        names, inner, size = self.names, self.sizes.intermediate_size, self.sizes.hidden_size
        has_bias = self.sizes.has_mlp_up_bias
        if names.mlp_up_gate:
            up, gate = self._split_linear(
                f"{name}.{names.mlp_up_gate}", 2, inner, size, has_bias=has_bias
            )
            return [gate, up]
        tensors = [names.mlp_gate, names.mlp_up] if self.sizes.is_gated else [names.mlp_up]
        return [
            self._linear(f"{name}.{tensor}", inner, size, has_bias=has_bias) for tensor in tensors
        ]

    def _linear(self, name: str, rows: int, columns: int, *, has_bias: bool) -> Linear:
        return self._split_linear(name, 1, rows, columns, has_bias=has_bias)[0]

    def _split_linear(
        self, name: str, parts: int, rows: int, columns: int, *, has_bias: bool
    ) -> list[Linear]:
        return self.context.split_linear(
            name, parts, rows, columns, prefix=self.prefix, has_bias=has_bias
        )
