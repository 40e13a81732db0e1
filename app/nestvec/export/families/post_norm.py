"""Encoders of BERT's kind (norm after each residual sum): one builder, and a table of names for each family.

Source: BERT (arXiv:1810.04805); tensor names as in Hugging Face's classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.config.encoder_config import Dimensions, EncoderConfig
from nestvec.export.graph.weights import Weights, common_prefix
from nestvec.export.layers.arithmetic import Floating, Linear, split_linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_layers import Attention
from nestvec.export.layers.blocks import Encoder, feed_forward, layer_norm
from nestvec.export.layers.build_context import Site
from nestvec.export.layers.relative import Relations, RelativePositions

Floats = NDArray[np.float32]
WORDS: Final = "embeddings.word_embeddings"
PREFIXES: Final = ("", "model.", "encoder.")


@dataclass(frozen=True, slots=True)
class Family:
    """What tells a family from BERT.

    Attributes:
        prefix: Under which checkpoints with a head keep the encoder, such as "bert.".
        layer: Of a block, with its number in braces; the names below stand under it.
        fields: Names or fixed values of config.json's fields, by ours.
        positions_after_padding: Whether positions count from `pad_token_id` + 1 (fairseq's habit).
        projects_embeddings: Whether the word table may be narrower than H.
        has_positions: Whether there is a table of positions.
        relative: What attention adds for positions, if anything.
        gated: Tensor of the MLP's two first layers in one, the one that is activated first; "" for a plain MLP.
    """

    prefix: str
    layer: str = "encoder.layer.{}"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    widen: str = "intermediate.dense"
    narrow: str = "output.dense"
    norm: str = "output.LayerNorm"
    fields: Mapping[str, Any] = field(default_factory=dict)
    positions_after_padding: bool = False
    projects_embeddings: bool = False
    has_positions: bool = True
    relative: RelativePositions | None = None
    gated: str = ""

    def read(self, config: Mapping[str, Any]) -> EncoderConfig:
        """Take what the graph depends on out of a config.json.

        Raises:
            FormatError: A field is missing, of the wrong type, or asks for what this graph is not.
        """
        fields = {"first_position": 0, "relative_buckets": 0, "embedding_size": "hidden_size"}
        fields |= self.fields
        if self.positions_after_padding:
            padding = config.get("pad_token_id")
            padding = 1 if padding is None else padding
            if not isinstance(padding, int) or isinstance(padding, bool) or padding < 0:
                raise FormatError("config.json: 'pad_token_id' must be an integer")
            fields["first_position"] = padding + 1
        if self.projects_embeddings:
            fields["embedding_size"] = "embedding_size"
        return EncoderConfig.read(config, fields)

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Sizes that serving needs.

        Raises:
            FormatError: As for `read`.
        """
        return self.read(config).dimensions

    def build(self, config: Mapping[str, Any], site: Site) -> Encoder:
        """Add the encoder to a graph: ids (T,) to token states (T, H) after each layer.

        Raises:
            FormatError: Configuration and weights do not make one.
        """
        sizes = self.read(config)
        prefixes = ("", self.prefix, *PREFIXES[1:])
        prefix = common_prefix(site.weights, f"{WORDS}.weight", prefixes)
        reader = _Reader(site.weights, prefix)
        words = _embeddings(site, reader, sizes, has_positions=self.has_positions)
        relations = (
            self.relative.of_layers(config, sizes, site, prefix)
            if self.relative is not None
            else lambda _: Relations()
        )
        names = [self.layer.format(number) for number in range(sizes.num_hidden_layers)]
        blocks = [_Block(site, reader, sizes, self, name, relations(name)) for name in names]
        states = site.stack(words, [block.add for block in blocks], sizes.hidden_size)
        return Encoder(tuple(states), sizes.hidden_size)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads tensors, whatever prefix and LayerNorm spelling the checkpoint has."""

    weights: Weights
    prefix: str

    def linear(self, name: str, rows: int, columns: int) -> Linear:
        """A torch Linear, whose weight is (out, in)."""
        full = f"{self.prefix}{name}"
        weight = self.weights.get(f"{full}.weight", (rows, columns)).T
        return Linear(name, weight, self.weights.get(f"{full}.bias", (rows,)))

    def table(self, name: str, rows: int, columns: int) -> Floats:
        return self.weights.get(f"{self.prefix}{name}.weight", (rows, columns))

    def norm(self, name: str, size: int) -> tuple[Floats, Floats]:
        """Scale and bias; checkpoints converted from TensorFlow call them gamma and beta."""
        old = f"{self.prefix}{name}.gamma" in self.weights
        scale, bias = ("gamma", "beta") if old else ("weight", "bias")
        full = f"{self.prefix}{name}."
        return self.weights.get(full + scale, (size,)), self.weights.get(full + bias, (size,))


def _embeddings(site: Site, reader: _Reader, sizes: EncoderConfig, *, has_positions: bool) -> str:
    """Word + type + position, then norm; projected where they are narrower."""
    graph, width = site.graph, sizes.embedding_size
    words = reader.table(WORDS, sizes.vocab_size, width)
    if sizes.type_vocab_size:
        kinds = reader.table("embeddings.token_type_embeddings", sizes.type_vocab_size, width)
        summed = site.typed(words, kinds)
    else:
        summed = graph.op("Gather", graph.weight("words", words), site.inputs.ids, axis=0)
    if has_positions:
        places = reader.table(
            "embeddings.position_embeddings", sizes.max_position_embeddings, width
        )
        own = graph.weight("places", places[sizes.first_position :])
        place = graph.op("Gather", own, site.inputs.positions, axis=0)
        summed = graph.op("Add", summed, place)
    scale, bias = reader.norm("embeddings.LayerNorm", width)
    state = layer_norm(graph, summed, "embeddings.norm", scale, bias, sizes.layer_norm_eps)
    if width == sizes.hidden_size:
        return state
    # In float32 whatever the precision: a thousandth of the model's work.
    project = reader.linear("embeddings_project", sizes.hidden_size, width)
    return Floating().apply(graph, state, [project])[0]


@dataclass(frozen=True, slots=True)
class _Block:
    """One post-norm transformer block."""

    site: Site
    reader: _Reader
    sizes: EncoderConfig
    family: Family
    name: str
    relations: Relations

    def add(self, state: str) -> str:
        """(T, H) to (T, H)."""
        size, inner, family = self.sizes.hidden_size, self.sizes.intermediate_size, self.family
        related = self.relations
        layers = Attention(
            query=self._linear(family.query, size, size),
            key=self._linear(family.key, size, size),
            value=self._linear(family.value, size, size),
            output=self._linear(family.output, size, size),
            heads=self.sizes.num_attention_heads,
            bias=related.bias,
            relate=related.relate,
            scale=related.scale,
        )
        attended = self_attention(
            self.site.graph, state, layers, arithmetic=self.site.arithmetic, inputs=self.site.inputs
        )
        state = self._add_and_norm(attended, state, family.attention_norm)
        first, last = self._widening(inner, size), self._linear(family.narrow, size, inner)
        projected = feed_forward(self.site, state, first, last, self.sizes.hidden_act)
        return self._add_and_norm(projected, state, family.norm)

    def _widening(self, inner: int, size: int) -> list[Linear]:
        """The MLP's first layer, or both of them."""
        if not self.family.gated:
            return [self._linear(self.family.widen, inner, size)]
        name = f"{self.name}.{self.family.gated}"
        weight = self.reader.table(name, 2 * inner, size)
        return split_linear(name, weight, np.zeros(2 * inner, np.float32), 2)

    def _linear(self, name: str, rows: int, columns: int) -> Linear:
        return self.reader.linear(f"{self.name}.{name}", rows, columns)

    def _add_and_norm(self, value: str, residual: str, name: str) -> str:
        full = f"{self.name}.{name}"
        scale, bias = self.reader.norm(full, self.sizes.hidden_size)
        summed = self.site.graph.op("Add", value, residual)
        return layer_norm(self.site.graph, summed, full, scale, bias, self.sizes.layer_norm_eps)
