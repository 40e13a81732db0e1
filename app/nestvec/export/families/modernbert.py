"""ModernBERT (arXiv:2412.13663): rotary positions, norm before each part, gated MLP; most layers attend to a window.

Tensor names as in transformers' modeling_modernbert.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number, sliding_layers
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.types import Float32Array
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_spec import AttentionSpec
from nestvec.export.layers.blocks import Encoder, feed_forward, layer_norm
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.masks import FULL_ATTENTION, AttentionMask, attention_mask
from nestvec.export.layers.rotary_embedding import RotaryEmbedding, rotary_embedding
from nestvec.export.layers.rotary_frequencies import RotaryFrequencies, frequencies_by_layer_type

WORD_EMBEDDINGS: Final = "embeddings.tok_embeddings.weight"


@dataclass(frozen=True, slots=True)
class ModernBertConfig:
    """What the graph depends on; fields are named as in ModernBERT's config.json.

    Attributes:
        is_local: For each layer, whether its tokens attend to a window only.
        window: In such layers, each token attends to tokens at most `window` - 1 away.
        frequencies: Of such layers (True) and of the others (False).
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    max_position_embeddings: int
    norm_eps: float
    hidden_act: str
    is_local: tuple[bool, ...]
    window: int
    frequencies: Mapping[bool, RotaryFrequencies]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Take the fields out of a config.json, of transformers 4 or 5.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        heads = positive(config, "num_attention_heads")
        hidden_size = positive(config, "hidden_size")
        if hidden_size % heads:
            raise FormatError("config.json: 'num_attention_heads' must divide 'hidden_size'")
        layers = positive(config, "num_hidden_layers")
        every = positive(config, "global_attn_every_n_layers", 3)
        is_local = sliding_layers(config, [number % every > 0 for number in range(layers)])
        return cls(
            vocab_size=positive(config, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=positive(config, "intermediate_size"),
            num_attention_heads=heads,
            max_position_embeddings=positive(config, "max_position_embeddings"),
            norm_eps=positive_number(config, "norm_eps", 1e-5),
            hidden_act=str(config.get("hidden_activation", "gelu")),
            is_local=is_local,
            window=positive(config, "local_attention", 128) // 2 + 1,
            frequencies=frequencies_by_layer_type(
                config,
                hidden_size // heads,
                full=("global_rope_theta", 160_000.0),
                sliding=("local_rope_theta", 10_000.0),
            ),
        )


@dataclass(frozen=True, slots=True)
class ModernBert:
    """The family.

    Attributes:
        prefix: Under which checkpoints with a head keep the encoder.
    """

    prefix: str = "model."

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        sizes = ModernBertConfig.read(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_position_embeddings)

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the encoder to a graph: ids [T] to token states [T, H] after each layer, the last one normed.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        sizes = ModernBertConfig.read(config)
        prefix = common_prefix(context.weights, WORD_EMBEDDINGS, ("", self.prefix))
        shape = (sizes.vocab_size, sizes.hidden_size)
        word_embeddings = context.weights.get(prefix + WORD_EMBEDDINGS, shape)
        return encoded(context, sizes, context.embed(word_embeddings), prefix)


def encoded(context: BuildContext, sizes: ModernBertConfig, embedded: str, prefix: str) -> Encoder:
    """Add all that follows the embeddings of tokens, their norm first.

    Args:
        context: The graph in the making.
        sizes: The encoder's sizes.
        embedded: [T, H].
        prefix: What stands before the names of its tensors.

    Raises:
        FormatError: Configuration and weights do not fit each other.
    """
    graph, inputs = context.graph, context.inputs
    builder = _Builder(context, prefix, sizes)
    embedded = builder.norm(embedded, "embeddings.norm")
    masks = {
        True: attention_mask(
            graph,
            inputs,
            is_causal=False,
            window=sizes.window,
            head_width=sizes.hidden_size // sizes.num_attention_heads,
        ),
        False: FULL_ATTENTION,
    }
    rotary = {
        is_local: rotary_embedding(
            graph,
            inputs,
            frequencies,
            sizes.max_position_embeddings,
            "_local" if is_local else "",
        )
        for is_local, frequencies in sizes.frequencies.items()
    }
    layers = [
        partial(builder.layer, number=number, rotary=rotary[is_local], mask=masks[is_local])
        for number, is_local in enumerate(sizes.is_local)
    ]
    states = context.stack(embedded, layers, sizes.hidden_size)
    final_norm = partial(builder.norm, name="final_norm")
    return Encoder.finalized(states, sizes.hidden_size, final_norm)


MODERNBERT: Final = ModernBert()


@dataclass(frozen=True, slots=True)
class _Builder:
    """Adds layers to a graph."""

    context: BuildContext
    prefix: str
    sizes: ModernBertConfig

    def layer(self, state: str, number: int, rotary: RotaryEmbedding, mask: AttentionMask) -> str:
        """Add a layer, [T, H] to [T, H]; the first layer's input is normed already."""
        graph, name = self.context.graph, f"layers.{number}"
        normed = self.norm(state, f"{name}.attn_norm") if number else state
        attended = self._attention(normed, f"{name}.attn", rotary, mask)
        state = graph.op("Add", state, attended)
        normed = self.norm(state, f"{name}.mlp_norm")
        return graph.op("Add", state, self._mlp(normed, f"{name}.mlp"))

    def norm(self, state: str, name: str) -> str:
        """Add a layer norm, in most checkpoints without a bias."""
        size = self.sizes.hidden_size
        scale = self.context.weights.get(f"{self.prefix}{name}.weight", (size,))
        bias = self._bias(name, size)
        return layer_norm(self.context.graph, state, name, scale, bias, self.sizes.norm_eps)

    def _bias(self, name: str, size: int) -> Float32Array:
        """Read a norm's bias; zeros where the checkpoint has none."""
        full = f"{self.prefix}{name}.bias"
        if full in self.context.weights:
            return self.context.weights.get(full, (size,))
        return np.zeros(size, np.float32)

    def _attention(
        self, state: str, name: str, rotary: RotaryEmbedding, mask: AttentionMask
    ) -> str:
        size, heads = self.sizes.hidden_size, self.sizes.num_attention_heads
        query, key, value = self._split_linear(f"{name}.Wqkv", 3, size, size)
        output = self._split_linear(f"{name}.Wo", 1, size, size)[0]
        spec = AttentionSpec(query, key, value, output, heads, mask=mask, rotary=rotary)
        return self_attention(self.context, state, spec)

    def _mlp(self, state: str, name: str) -> str:
        inner, size = self.sizes.intermediate_size, self.sizes.hidden_size
        first = self._split_linear(f"{name}.Wi", 2, inner, size)
        last = self._split_linear(f"{name}.Wo", 1, size, inner)[0]
        return feed_forward(self.context, state, first, last, self.sizes.hidden_act)

    def _split_linear(self, name: str, parts: int, rows: int, columns: int) -> list[Linear]:
        """Read a layer that holds several, with a bias if the checkpoint has one."""
        has_bias = f"{self.prefix}{name}.bias" in self.context.weights
        return self.context.split_linear(
            name, parts, rows, columns, prefix=self.prefix, has_bias=has_bias
        )
