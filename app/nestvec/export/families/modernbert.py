"""ModernBERT (arXiv:2412.13663): rotary positions, norm before each part, gated MLP, most layers see neighbours."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number, sliding_layers
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.arithmetic import Linear, split_linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_layers import Attention
from nestvec.export.layers.blocks import Encoder, feed_forward, layer_norm
from nestvec.export.layers.build_context import Site
from nestvec.export.layers.frequencies import Frequencies, frequencies_by_kind
from nestvec.export.layers.masks import Sight, sight
from nestvec.export.layers.rotary import Turn, rotary

WORDS: Final = "embeddings.tok_embeddings.weight"


@dataclass(frozen=True, slots=True)
class ModernBertConfig:
    """What the graph depends on.

    Attributes:
        is_local: Of each layer, whether it sees neighbours only.
        window: How far such a layer sees to each side, the token itself counted.
        frequencies: Of such layers (True) and of the others.
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
    frequencies: Mapping[bool, Frequencies]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Take the fields out of a config.json, of transformers 4 or 5.

        Raises:
            FormatError: A field is missing, of the wrong type, or asks for what this graph is not.
        """
        heads, hidden = positive(config, "num_attention_heads"), positive(config, "hidden_size")
        if hidden % heads:
            raise FormatError("config.json: 'num_attention_heads' must divide 'hidden_size'")
        layers = positive(config, "num_hidden_layers")
        every = positive(config, "global_attn_every_n_layers", 3)
        is_local = sliding_layers(config, [number % every > 0 for number in range(layers)])
        return cls(
            vocab_size=positive(config, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=positive(config, "intermediate_size"),
            num_attention_heads=heads,
            max_position_embeddings=positive(config, "max_position_embeddings"),
            norm_eps=positive_number(config, "norm_eps", 1e-5),
            hidden_act=str(config.get("hidden_activation", "gelu")),
            is_local=is_local,
            window=positive(config, "local_attention", 128) // 2 + 1,
            frequencies=frequencies_by_kind(
                config,
                hidden // heads,
                full=("global_rope_theta", 160_000.0),
                sliding=("local_rope_theta", 10_000.0),
            ),
        )


@dataclass(frozen=True, slots=True)
class ModernBert:
    """The family."""

    prefix: str = "model."

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Sizes that serving needs.

        Raises:
            FormatError: As for `ModernBertConfig.read`.
        """
        sizes = ModernBertConfig.read(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_position_embeddings)

    def build(self, config: Mapping[str, Any], site: Site) -> Encoder:
        """Add it to a graph: ids (T,) to token states (T, H) after each layer, the last one normed.

        Raises:
            FormatError: Configuration and weights do not make one.
        """
        sizes = ModernBertConfig.read(config)
        graph, inputs = site.graph, site.inputs
        part = _Part(site, common_prefix(site.weights, WORDS, ("", self.prefix)), sizes)
        words = site.weights.get(part.prefix + WORDS, (sizes.vocab_size, sizes.hidden_size))
        word = graph.op("Gather", graph.weight("words", words), inputs.ids, axis=0)
        first = part.norm(word, "embeddings.norm")
        near = sight(graph, inputs, is_causal=False, window=sizes.window)
        ways = {
            is_local: (
                rotary(
                    graph,
                    inputs.positions,
                    found,
                    sizes.max_position_embeddings,
                    "_local" if is_local else "",
                ),
                near if is_local else Sight(),
            )
            for is_local, found in sizes.frequencies.items()
        }
        layers = [
            partial(part.layer, number=number, way=ways[is_local])
            for number, is_local in enumerate(sizes.is_local)
        ]
        states = site.stack(first, layers, sizes.hidden_size)

        def end(state: str) -> str:
            return part.norm(state, "final_norm")

        return Encoder((*states[:-1], end(states[-1])), sizes.hidden_size, end)


MODERNBERT: Final = ModernBert()


@dataclass(frozen=True, slots=True)
class _Part:
    """Adds layers to a graph."""

    site: Site
    prefix: str
    sizes: ModernBertConfig

    def layer(self, state: str, number: int, way: tuple[Turn, Sight]) -> str:
        """(T, H) to (T, H); the first layer's input is normed already."""
        turn, seen = way
        name = f"layers.{number}"
        normed = self.norm(state, f"{name}.attn_norm") if number else state
        state = self.site.graph.op(
            "Add", state, self._attention(normed, f"{name}.attn", turn, seen)
        )
        normed = self.norm(state, f"{name}.mlp_norm")
        return self.site.graph.op("Add", state, self._mlp(normed, f"{name}.mlp"))

    def norm(self, state: str, name: str) -> str:
        """Layer norm, mostly without a bias."""
        size = self.sizes.hidden_size
        scale = self.site.weights.get(f"{self.prefix}{name}.weight", (size,))
        return layer_norm(
            self.site.graph, state, name, scale, self._bias(name, size), self.sizes.norm_eps
        )

    def _attention(self, state: str, name: str, turn: Turn, seen: Sight) -> str:
        size, heads = self.sizes.hidden_size, self.sizes.num_attention_heads
        query, key, value = self._parts(f"{name}.Wqkv", 3, size, size)

        output = self._parts(f"{name}.Wo", 1, size, size)[0]
        layers = Attention(query, key, value, output, heads, sight=seen, turn=turn)
        return self_attention(
            self.site.graph, state, layers, arithmetic=self.site.arithmetic, inputs=self.site.inputs
        )

    def _mlp(self, state: str, name: str) -> str:
        inner, size = self.sizes.intermediate_size, self.sizes.hidden_size
        first = self._parts(f"{name}.Wi", 2, inner, size)
        last = self._parts(f"{name}.Wo", 1, size, inner)[0]
        return feed_forward(self.site, state, first, last, self.sizes.hidden_act)

    def _parts(self, name: str, count: int, rows: int, columns: int) -> list[Linear]:
        """A torch Linear whose rows hold several layers' one after the other."""
        weight = self.site.weights.get(f"{self.prefix}{name}.weight", (count * rows, columns))
        return split_linear(name, weight, self._bias(name, count * rows), count)

    def _bias(self, name: str, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        full = f"{self.prefix}{name}.bias"
        return (
            self.site.weights.get(full, (size,))
            if full in self.site.weights
            else np.zeros(size, np.float32)
        )
