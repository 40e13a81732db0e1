"""NomicBERT (arXiv:2402.01613): BERT with rotary positions and a gated MLP, no biases in its layers.

Checkpoints are in the names of the authors' own code, or in those of transformers 5; both are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from app.errors import FormatError
from app.export.arithmetic import Linear, split_linear
from app.export.attention import Attention, self_attention
from app.export.blocks import Encoder, activation, layer_norm
from app.export.config_fields import positive, positive_number
from app.export.encoder_config import Dimensions
from app.export.rotary import Turn, rotary, theta_of, turned_heads
from app.export.site import Site
from app.export.weights import common_prefix

WORDS: Final = "embeddings.word_embeddings.weight"
# What the authors' code calls a field, and the one value that this graph has.
FIXED: Final[Mapping[str, object]] = {
    "prenorm": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "use_rms_norm": False,
    "causal": False,
    "activation_function": "swiglu",
}


@dataclass(frozen=True, slots=True)
class Names:
    """Tensors of a layer, below its own name."""

    embedding_norm: str
    layer: str
    output: str
    gate: str
    up: str
    down: str
    attention_norm: str
    mlp_norm: str
    fused: str = ""  # queries, keys and values in one; else each by `{}_proj`
    parts: str = ""


OWN: Final = Names(
    embedding_norm="emb_ln",
    layer="encoder.layers.{}",
    output="attn.out_proj",
    gate="mlp.fc12",
    up="mlp.fc11",
    down="mlp.fc2",
    attention_norm="norm1",
    mlp_norm="norm2",
    fused="attn.Wqkv",
)
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
class NomicConfig:
    """What the graph depends on."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_positions: int
    type_vocab_size: int
    layer_norm_eps: float
    theta: float

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Take the fields out of a config.json, by either set of names.

        Raises:
            FormatError: A field is missing, of the wrong type, or asks for what this graph is not.
        """
        for name, value in FIXED.items():
            if config.get(name) not in (None, value):
                raise FormatError(f"config.json: '{name}' must be {value!r}")
        if config.get("rotary_scaling_factor") is not None:
            raise FormatError("config.json: 'rotary_scaling_factor' is not supported")
        old = "n_embd" in config
        hidden = positive(config, "n_embd" if old else "hidden_size")
        heads = positive(config, "n_head" if old else "num_attention_heads")
        if hidden % heads or (hidden // heads) % 2:
            raise FormatError("config.json: heads must divide the hidden size into even widths")
        epsilon = "layer_norm_epsilon" if old else "layer_norm_eps"
        return cls(
            vocab_size=positive(config, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=positive(config, "n_inner" if old else "intermediate_size"),
            num_hidden_layers=positive(config, "n_layer" if old else "num_hidden_layers"),
            num_attention_heads=heads,
            max_positions=positive(config, "n_positions" if old else "max_position_embeddings"),
            type_vocab_size=positive(config, "type_vocab_size", 2),
            layer_norm_eps=positive_number(config, epsilon, 1e-12),
            theta=positive_number(config, "rotary_emb_base", 1000.0)
            if old
            else theta_of({"rope_theta": 1000.0, **config}),
        )


@dataclass(frozen=True, slots=True)
class Nomic:
    """The family."""

    prefix: str = "nomic_bert."

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Sizes that serving needs.

        Raises:
            FormatError: As for `NomicConfig.read`.
        """
        sizes = NomicConfig.read(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_positions)

    def build(self, config: Mapping[str, Any], site: Site) -> Encoder:
        """Add it to a graph: ids (T,) to token states (T, H) after each layer.

        Raises:
            FormatError: Configuration and weights do not make one.
        """
        sizes = NomicConfig.read(config)
        prefix = common_prefix(site.weights, WORDS, ("", self.prefix, "bert.", "model."))
        names = OWN if f"{prefix}{OWN.embedding_norm}.weight" in site.weights else TRANSFORMERS
        part = _Part(site, prefix, sizes, names)
        words = site.weights.get(prefix + WORDS, (sizes.vocab_size, sizes.hidden_size))
        kinds = site.weights.get(
            f"{prefix}embeddings.token_type_embeddings.weight",
            (sizes.type_vocab_size, sizes.hidden_size),
        )
        graph = site.graph
        # One text an input: every token is of type 0, whose vector may as well be in the table.
        word = graph.op("Gather", graph.weight("words", words + kinds[0]), site.inputs.ids, axis=0)
        states = [part.norm(word, names.embedding_norm)]
        width = sizes.hidden_size // sizes.num_attention_heads
        turn = rotary(graph, site.inputs.positions, theta=sizes.theta, width=width)
        for number in range(sizes.num_hidden_layers):
            states.append(part.layer(states[-1], names.layer.format(number), turn))
        return Encoder(tuple(states), sizes.hidden_size)


NOMIC: Final = Nomic()


@dataclass(frozen=True, slots=True)
class _Part:
    """Adds layers to a graph."""

    site: Site
    prefix: str
    sizes: NomicConfig
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

        def prepare(projected: list[str]) -> list[str]:
            width = size // heads
            return turned_heads(self.site.graph, projected, turn, count=heads, width=width)

        if self.names.fused:
            query, key, value = self._linears(f"{name}.{self.names.fused}", 3, size, size)
        else:
            own = [f"{name}.{self.names.parts.format(part)}" for part in ("q", "k", "v")]
            query, key, value = (self._linears(one, 1, size, size)[0] for one in own)
        output = self._linears(f"{name}.{self.names.output}", 1, size, size)[0]
        layers = Attention(query, key, value, output, heads, prepare=prepare)
        return self_attention(
            self.site.graph,
            state,
            layers,
            arithmetic=self.site.arithmetic,
            inputs=self.site.inputs,
        )

    def _mlp(self, state: str, name: str) -> str:
        inner, size = self.sizes.intermediate_size, self.sizes.hidden_size
        gate, up, down = (
            self._linears(f"{name}.{part}", 1, *shape)[0]
            for part, shape in (
                (self.names.gate, (inner, size)),
                (self.names.up, (inner, size)),
                (self.names.down, (size, inner)),
            )
        )
        graph, arithmetic = self.site.graph, self.site.arithmetic
        gated, wide = arithmetic.apply(graph, state, [gate, up])
        mixed = graph.op("Mul", activation(graph, gated, "silu"), wide)
        return arithmetic.apply(graph, mixed, [down])[0]

    def _linears(self, name: str, count: int, rows: int, columns: int) -> list[Linear]:
        """A torch Linear without bias, whose rows hold several layers' one after the other."""
        weight = self.site.weights.get(f"{self.prefix}{name}.weight", (count * rows, columns))
        return split_linear(name, weight, np.zeros(count * rows, np.float32), count)
