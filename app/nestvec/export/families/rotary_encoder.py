"""Encoders with BERT's order of norms and rotary positions: one builder, and tables of sizes and names.

NomicBERT, GTE and Jina's third model are such; each has checkpoints in the names of its authors' own code and in those
of transformers 5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.arithmetic import Linear, split_linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_layers import Attention
from nestvec.export.layers.blocks import Encoder, feed_forward, layer_norm
from nestvec.export.layers.build_context import Site
from nestvec.export.layers.frequencies import Frequencies, read_frequencies
from nestvec.export.layers.rotary import Turn, rotary

WORDS: Final = "embeddings.word_embeddings.weight"
KINDS: Final = "embeddings.token_type_embeddings.weight"


@dataclass(frozen=True, slots=True)
class RotarySizes:
    """What the graph depends on.

    Attributes:
        type_vocab_size: Rows of the token type table; 0 where there is none.
        is_gated: Whether the MLP multiplies two branches.
        projection_bias: Whether attention's layers have biases.
        widening_bias: Whether the MLP's first layer or layers have.
        narrowing_bias: Whether its last one has.
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
    frequencies: Frequencies
    is_gated: bool = True
    projection_bias: bool = False
    widening_bias: bool = False
    narrowing_bias: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """Tensors of a layer, below its own name.

    Attributes:
        embedding_norm: Not in a layer: of the embeddings. Tells one set of names from another.
        fused: Queries, keys and values in one layer; "" where each has its own, by `parts`.
        up: The MLP's first layer; beside `gate`, or with it in one: `fused_gate`, the gate second.
    """

    embedding_norm: str
    layer: str
    output: str
    down: str
    attention_norm: str
    mlp_norm: str
    up: str = ""
    gate: str = ""
    fused_gate: str = ""
    fused: str = ""
    parts: str = ""


TRANSFORMERS: Final = Names(
    embedding_norm="embeddings.LayerNorm",
    layer="layers.{}",
    output="self_attn.o_proj",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    attention_norm="post_attention_layernorm",
    mlp_norm="post_mlp_layernorm",
    parts="self_attn.{}_proj",
)


@dataclass(frozen=True, slots=True)
class RotaryEncoder:
    """A family.

    Attributes:
        prefix: Under which checkpoints with a head keep the encoder.
        read: Takes sizes out of a config.json.
        names: Sets of names that checkpoints may have, told by a tensor of the first layer.
    """

    prefix: str
    read: Callable[[Mapping[str, Any]], RotarySizes]
    names: tuple[Names, ...]

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Sizes that serving needs.

        Raises:
            FormatError: A field is missing, of the wrong type, or asks for what this graph is not.
        """
        sizes = self.read(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_positions)

    def build(self, config: Mapping[str, Any], site: Site) -> Encoder:
        """Add it to a graph: ids (T,) to token states (T, H) after each layer.

        Raises:
            FormatError: Configuration and weights do not make one.
        """
        sizes = self.read(config)
        prefixes = ("", self.prefix, "bert.", "model.", "roberta.", "new.")
        prefix = common_prefix(site.weights, WORDS, prefixes)
        part = _Part(site, prefix, sizes, self._chosen(site, prefix))
        graph = site.graph
        words = site.weights.get(prefix + WORDS, (sizes.vocab_size, sizes.hidden_size))
        if sizes.type_vocab_size:
            kinds = site.weights.get(prefix + KINDS, (sizes.type_vocab_size, sizes.hidden_size))
            word = site.typed(words, kinds)
        else:
            word = graph.op("Gather", graph.weight("words", words), site.inputs.ids, axis=0)
        first = part.norm(word, part.names.embedding_norm)
        turn = rotary(graph, site.inputs.positions, sizes.frequencies, sizes.max_positions)
        layers = [
            partial(part.layer, name=part.names.layer.format(number), turn=turn)
            for number in range(sizes.num_hidden_layers)
        ]
        states = site.stack(first, layers, sizes.hidden_size)
        return Encoder(tuple(states), sizes.hidden_size)

    def _chosen(self, site: Site, prefix: str) -> Names:
        """The names of this checkpoint: those of which most tensors are there."""

        def found(names: Names) -> int:
            layer = f"{prefix}{names.layer.format(0)}."
            own = (names.output, names.down, names.attention_norm, names.mlp_norm)
            return sum(f"{layer}{name}.weight" in site.weights for name in own)

        return max(self.names, key=found)


def read_sizes(config: Mapping[str, Any], *, theta: float, **own: Any) -> RotarySizes:  # noqa: ANN401 - fields of several types
    """Take sizes out of a config.json by transformers' names.

    Args:
        config: The file's content.
        theta: The family's base of positions where the file has none.
        own: What the family fixes, or reads in its own way.

    Raises:
        FormatError: A field is missing, of the wrong type, or asks for what this graph is not.
    """
    hidden, heads = positive(config, "hidden_size"), positive(config, "num_attention_heads")
    width = head_width(hidden, heads)
    fields: dict[str, Any] = {
        "vocab_size": positive(config, "vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": positive(config, "intermediate_size"),
        "num_hidden_layers": positive(config, "num_hidden_layers"),
        "num_attention_heads": heads,
        "max_positions": positive(config, "max_position_embeddings"),
        "type_vocab_size": 0,
        "layer_norm_eps": positive_number(config, "layer_norm_eps", 1e-12),
        "hidden_act": str(config.get("hidden_act", "gelu")),
        "frequencies": read_frequencies(config, width, theta),
    }
    return RotarySizes(**{**fields, **own})


def check_fixed(config: Mapping[str, Any], fixed: Mapping[str, object]) -> None:
    """Refuse what a graph does not have.

    Args:
        config: The file's content.
        fixed: Fields and the one value that each may have, where it is there.

    Raises:
        FormatError: Names the field.
    """
    for name, value in fixed.items():
        if config.get(name) not in (None, value):
            raise FormatError(f"config.json: '{name}' must be {value!r}")


def head_width(hidden: int, heads: int) -> int:
    """Of a head that can be turned.

    Raises:
        FormatError: Heads do not divide the states, or into odd widths.
    """
    if hidden % heads or (hidden // heads) % 2:
        raise FormatError("config.json: heads must divide the hidden size into even widths")
    return hidden // heads


@dataclass(frozen=True, slots=True)
class _Part:
    """Adds layers to a graph."""

    site: Site
    prefix: str
    sizes: RotarySizes
    names: Names

    def layer(self, state: str, name: str, turn: Turn) -> str:
        """(T, H) to (T, H)."""
        graph, names = self.site.graph, self.names
        attended = self._attention(state, name, turn)
        summed = graph.op("Add", attended, state)
        state = self.norm(summed, f"{name}.{names.attention_norm}")
        summed = graph.op("Add", self._mlp(state, name), state)
        return self.norm(summed, f"{name}.{names.mlp_norm}")

    def norm(self, state: str, name: str) -> str:
        """Layer norm."""
        size, full = self.sizes.hidden_size, f"{self.prefix}{name}"
        scale = self.site.weights.get(f"{full}.weight", (size,))
        bias = self.site.weights.get(f"{full}.bias", (size,))
        return layer_norm(self.site.graph, state, name, scale, bias, self.sizes.layer_norm_eps)

    def _attention(self, state: str, name: str, turn: Turn) -> str:
        size, heads = self.sizes.hidden_size, self.sizes.num_attention_heads
        has_bias = self.sizes.projection_bias

        if self.names.fused:
            fused = f"{name}.{self.names.fused}"
            query, key, value = self._linears(fused, 3, size, size, has_bias=has_bias)
        else:
            own = [f"{name}.{self.names.parts.format(part)}" for part in ("q", "k", "v")]
            query, key, value = (
                self._linears(one, 1, size, size, has_bias=has_bias)[0] for one in own
            )
        output = self._linears(f"{name}.{self.names.output}", 1, size, size, has_bias=has_bias)[0]
        layers = Attention(query, key, value, output, heads, turn=turn)
        return self_attention(
            self.site.graph,
            state,
            layers,
            arithmetic=self.site.arithmetic,
            inputs=self.site.inputs,
        )

    def _mlp(self, state: str, name: str) -> str:
        inner, size = self.sizes.intermediate_size, self.sizes.hidden_size
        down = self._linears(
            f"{name}.{self.names.down}", 1, size, inner, has_bias=self.sizes.narrowing_bias
        )[0]
        first = self._widening(name, inner, size)
        return feed_forward(self.site, state, first, down, self.sizes.hidden_act)

    def _widening(self, name: str, inner: int, size: int) -> list[Linear]:
        """The MLP's first layer, or both of them, the one that is activated first."""
        has_bias = self.sizes.widening_bias
        if self.names.fused_gate:
            fused = f"{name}.{self.names.fused_gate}"
            return self._linears(fused, 2, inner, size, has_bias=has_bias)[::-1]
        own = [*([self.names.gate] if self.sizes.is_gated else []), self.names.up]
        return [self._linears(f"{name}.{n}", 1, inner, size, has_bias=has_bias)[0] for n in own]

    def _linears(
        self, name: str, count: int, rows: int, columns: int, *, has_bias: bool
    ) -> list[Linear]:
        """A torch Linear whose rows hold several layers' one after the other."""
        full = f"{self.prefix}{name}"
        weight = self.site.weights.get(f"{full}.weight", (count * rows, columns))
        bias = np.zeros(count * rows, np.float32)
        if has_bias:
            bias = self.site.weights.get(f"{full}.bias", (count * rows,))
        return split_linear(name, weight, bias, count)
