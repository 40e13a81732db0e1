"""T5's encoder (arXiv:1910.10683), as in GTR and sentence-T5: norm before each part, buckets of distances."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_layers import Attention
from nestvec.export.layers.blocks import Encoder, feed_forward, rms_norm
from nestvec.export.layers.build_context import Site
from nestvec.export.layers.relative import MAX_DISTANCE, bucket_bias, cut_bias

WORDS: Final = ("shared.weight", "encoder.embed_tokens.weight")
BIAS: Final = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
# "gated-gelu" has always meant the approximate one.
ACTIVATIONS: Final[Mapping[str, str]] = {"gated-gelu": "gelu_new"}


@dataclass(frozen=True, slots=True)
class T5Config:
    """What the graph depends on.

    Attributes:
        inner_size: Of attention, heads x d_kv.
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
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Take the fields out of a config.json.

        Raises:
            FormatError: A field is missing, of the wrong type, or asks for what this graph is not.
        """
        if positive(config, "relative_attention_max_distance", MAX_DISTANCE) != MAX_DISTANCE:
            raise FormatError(
                f"config.json: 'relative_attention_max_distance' must be {MAX_DISTANCE}"
            )
        heads = positive(config, "num_heads")
        projected = str(config.get("feed_forward_proj", "relu"))
        buckets = positive(config, "relative_attention_num_buckets", 32)
        if buckets < 4:  # noqa: PLR2004 - both ways, near and far
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
            hidden_act=ACTIVATIONS.get(projected, projected.removeprefix("gated-")),
            is_gated=projected.startswith("gated-"),
        )


@dataclass(frozen=True, slots=True)
class T5:
    """The family."""

    prefix: str = ""

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Sizes that serving needs.

        Raises:
            FormatError: As for `T5Config.read`.
        """
        sizes = T5Config.read(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_positions)

    def build(self, config: Mapping[str, Any], site: Site) -> Encoder:
        """Add it to a graph: ids (T,) to token states (T, H) after each layer, the last one normed.

        Raises:
            FormatError: Configuration and weights do not make one.
        """
        sizes = T5Config.read(config)
        graph = site.graph
        part = _Part(site, sizes)
        name = next((one for one in WORDS if one in site.weights), WORDS[0])
        words = site.weights.get(name, (sizes.vocab_size, sizes.hidden_size))
        word = graph.op("Gather", graph.weight("words", words), site.inputs.ids, axis=0)
        table = site.weights.get(BIAS, (sizes.relative_buckets, sizes.num_attention_heads))
        whole = graph.weight("relative_bias", bucket_bias(table, sizes.max_positions))
        bias = cut_bias(graph, whole, site.inputs)
        layers = [
            partial(part.layer, name=f"encoder.block.{number}.layer", bias=bias)
            for number in range(sizes.num_hidden_layers)
        ]
        states = site.stack(word, layers, sizes.hidden_size)

        def end(state: str) -> str:
            return part.norm(state, "encoder.final_layer_norm")

        return Encoder((*states[:-1], end(states[-1])), sizes.hidden_size, end)


T5_ENCODER: Final = T5()


@dataclass(frozen=True, slots=True)
class _Part:
    """Adds layers to a graph."""

    site: Site
    sizes: T5Config

    def layer(self, state: str, name: str, bias: str) -> str:
        """(T, H) to (T, H)."""
        graph = self.site.graph
        normed = self.norm(state, f"{name}.0.layer_norm")
        state = graph.op("Add", state, self._attention(normed, f"{name}.0.SelfAttention", bias))
        normed = self.norm(state, f"{name}.1.layer_norm")
        return graph.op("Add", state, self._mlp(normed, f"{name}.1.DenseReluDense"))

    def norm(self, state: str, name: str) -> str:
        """RMS norm."""
        scale = self.site.weights.get(f"{name}.weight", (self.sizes.hidden_size,))
        return rms_norm(self.site.graph, state, name, scale, self.sizes.epsilon)

    def _attention(self, state: str, name: str, bias: str) -> str:
        inner, size = self.sizes.inner_size, self.sizes.hidden_size
        layers = Attention(
            query=self._linear(f"{name}.q", inner, size),
            key=self._linear(f"{name}.k", inner, size),
            value=self._linear(f"{name}.v", inner, size),
            output=self._linear(f"{name}.o", size, inner),
            heads=self.sizes.num_attention_heads,
            bias=bias,
            scale=1.0,
        )
        return self_attention(
            self.site.graph, state, layers, arithmetic=self.site.arithmetic, inputs=self.site.inputs
        )

    def _mlp(self, state: str, name: str) -> str:
        inner, size = self.sizes.intermediate_size, self.sizes.hidden_size
        first = ("wi_0", "wi_1") if self.sizes.is_gated else ("wi",)
        layers = [self._linear(f"{name}.{one}", inner, size) for one in first]
        down = self._linear(f"{name}.wo", size, inner)
        return feed_forward(self.site, state, layers, down, self.sizes.hidden_act)

    def _linear(self, name: str, rows: int, columns: int) -> Linear:
        """A torch Linear without bias."""
        weight = self.site.weights.get(f"{name}.weight", (rows, columns)).T
        return Linear(name, weight, np.zeros(rows, np.float32))
