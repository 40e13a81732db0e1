"""T5's encoder (arXiv:1910.10683), as in GTR and sentence-T5: norm before each part, a bias for buckets of distances.

mT5 (arXiv:2010.11934) is the same with a gated MLP.

Tensor names as in transformers' modeling_t5.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_spec import AttentionSpec
from nestvec.export.layers.blocks import Encoder, feed_forward, rms_norm
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.relative_positions import (
    MAX_DISTANCE,
    PositionTerms,
    bucket_bias,
    sliced_bias,
)

WORD_EMBEDDINGS: Final = ("shared.weight", "encoder.embed_tokens.weight")
RELATIVE_BIAS: Final = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
# Both directions, near and far.
MIN_BUCKETS: Final = 4
# "gated-gelu" has always meant the tanh approximation.
ACTIVATIONS: Final[Mapping[str, str]] = {"gated-gelu": "gelu_new"}


@dataclass(frozen=True, slots=True)
class T5Config:
    """What the graph depends on.

    Attributes:
        inner_size: Width of all heads together, heads * d_kv.
        relative_buckets: Number of buckets of distances.
        max_positions: How many positions the graph has a bias for.
        is_gated: Whether the MLP is gated.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    inner_size: int
    relative_buckets: int
    max_positions: int
    epsilon: float
    hidden_act: str
    is_gated: bool

    @classmethod
    def read(cls, config: Mapping[str, Any], feed_forward: str) -> Self:
        """Take the fields out of a config.json.

        Args:
            config: The file's content.
            feed_forward: The kind of MLP of a file that does not say.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        if positive(config, "relative_attention_max_distance", MAX_DISTANCE) != MAX_DISTANCE:
            raise FormatError(
                f"config.json: 'relative_attention_max_distance' must be {MAX_DISTANCE}"
            )
        heads = positive(config, "num_heads")
        feed_forward_proj = str(config.get("feed_forward_proj", feed_forward))
        buckets = positive(config, "relative_attention_num_buckets", 32)
        if buckets < MIN_BUCKETS:
            raise FormatError("config.json: 'relative_attention_num_buckets' must be at least 4")
        return cls(
            vocab_size=positive(config, "vocab_size"),
            hidden_size=positive(config, "d_model"),
            intermediate_size=positive(config, "d_ff"),
            num_hidden_layers=positive(config, "num_layers"),
            num_attention_heads=heads,
            inner_size=heads * positive(config, "d_kv"),
            relative_buckets=buckets,
            max_positions=positive(config, "n_positions", 512),
            epsilon=positive_number(config, "layer_norm_epsilon", 1e-6),
            hidden_act=ACTIVATIONS.get(feed_forward_proj, feed_forward_proj.removeprefix("gated-")),
            is_gated=feed_forward_proj.startswith("gated-"),
        )


@dataclass(frozen=True, slots=True)
class T5:
    """The family.

    Attributes:
        prefix: Checkpoints with a decoder have the encoder under the same names.
        feed_forward: The kind of MLP where config.json does not say.
    """

    prefix: str = ""
    feed_forward: str = "relu"

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        sizes = T5Config.read(config, self.feed_forward)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_positions)

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the encoder to a graph: ids [T] to token states [T, H] after each layer, the last one normed.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        sizes = T5Config.read(config, self.feed_forward)
        graph, weights = context.graph, context.weights
        builder = _Builder(context, sizes)
        name = next((name for name in WORD_EMBEDDINGS if name in weights), WORD_EMBEDDINGS[0])
        embedded = context.embed(weights.get(name, (sizes.vocab_size, sizes.hidden_size)))
        table = weights.get(RELATIVE_BIAS, (sizes.relative_buckets, sizes.num_attention_heads))
        full_bias = graph.weight("relative_bias", bucket_bias(table, sizes.max_positions))
        terms = sliced_bias(graph, full_bias, context.inputs)
        layers = [
            partial(builder.layer, name=f"encoder.block.{number}.layer", terms=terms)
            for number in range(sizes.num_hidden_layers)
        ]
        states = context.stack(embedded, layers, sizes.hidden_size)
        final_norm = partial(builder.norm, name="encoder.final_layer_norm")
        return Encoder.finalized(states, sizes.hidden_size, final_norm)


T5_ENCODER: Final = T5()
MT5_ENCODER: Final = T5(feed_forward="gated-gelu")


@dataclass(frozen=True, slots=True)
class _Builder:
    """Adds layers to a graph."""

    context: BuildContext
    sizes: T5Config

    def layer(self, state: str, name: str, terms: PositionTerms) -> str:
        """Add a layer, [T, H] to [T, H]."""
        graph = self.context.graph
        normed = self.norm(state, f"{name}.0.layer_norm")
        state = graph.op("Add", state, self._attention(normed, f"{name}.0.SelfAttention", terms))
        normed = self.norm(state, f"{name}.1.layer_norm")
        return graph.op("Add", state, self._mlp(normed, f"{name}.1.DenseReluDense"))

    def norm(self, state: str, name: str) -> str:
        """Add an RMS norm."""
        scale = self.context.weights.get(f"{name}.weight", (self.sizes.hidden_size,))
        return rms_norm(self.context.graph, state, name, scale, self.sizes.epsilon)

    def _attention(self, state: str, name: str, terms: PositionTerms) -> str:
        inner, size = self.sizes.inner_size, self.sizes.hidden_size
        spec = AttentionSpec(
            query=self.context.linear(f"{name}.q", inner, size),
            key=self.context.linear(f"{name}.k", inner, size),
            value=self.context.linear(f"{name}.v", inner, size),
            output=self.context.linear(f"{name}.o", size, inner),
            heads=self.sizes.num_attention_heads,
            bias=terms.bias,
            bias_rows=terms.bias_rows,
            scale=1.0,
        )
        return self_attention(self.context, state, spec)

    def _mlp(self, state: str, name: str) -> str:
        inner, size = self.sizes.intermediate_size, self.sizes.hidden_size
        parts = ("wi_0", "wi_1") if self.sizes.is_gated else ("wi",)
        first = [self.context.linear(f"{name}.{part}", inner, size) for part in parts]
        last = self.context.linear(f"{name}.wo", size, inner)
        return feed_forward(self.context, state, first, last, self.sizes.hidden_act)
