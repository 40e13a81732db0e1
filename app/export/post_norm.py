"""Encoders of BERT's kind (norm after each residual sum): one builder, and a table of names for each family.

Source: BERT (arXiv:1810.04805); tensor names as in Hugging Face's classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.errors import FormatError
from app.export.arithmetic import Linear
from app.export.attention import Attention, self_attention
from app.export.blocks import Encoder, activation, layer_norm
from app.export.encoder_config import Dimensions, EncoderConfig
from app.export.graph import GraphBuilder
from app.export.inputs import PackedInputs
from app.export.relative import bucket_bias
from app.export.site import Site
from app.export.weights import Weights, common_prefix

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
        relative_bias: Tensor of a relative position bias, (buckets, heads); "" for none.
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
    relative_bias: str = ""

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
        graph, inputs = site.graph, site.inputs
        prefixes = ("", self.prefix, *PREFIXES[1:])
        prefix = common_prefix(site.weights, f"{WORDS}.weight", prefixes)
        reader = _Reader(site.weights, prefix)
        states = [_embeddings(graph, reader, sizes, inputs)]
        bias = None
        if self.relative_bias:
            table = reader.table(
                self.relative_bias, sizes.relative_buckets, sizes.num_attention_heads
            )
            whole = bucket_bias(table, sizes.dimensions.max_positions or 0)
            bias = _cut(graph, graph.weight("relative_bias", whole), inputs)
        for number in range(sizes.num_hidden_layers):
            block = _Block(site, reader, sizes, self, self.layer.format(number), bias)
            states.append(block.add(states[-1]))
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


def _embeddings(
    graph: GraphBuilder, reader: _Reader, sizes: EncoderConfig, inputs: PackedInputs
) -> str:
    """Word + position + type 0 (one text an input: always type 0), then norm; projected where they are narrower."""
    width = sizes.embedding_size
    words = reader.table(WORDS, sizes.vocab_size, width)
    places = reader.table("embeddings.position_embeddings", sizes.max_position_embeddings, width)
    places = places[sizes.first_position :]
    if sizes.type_vocab_size:
        kinds = reader.table("embeddings.token_type_embeddings", sizes.type_vocab_size, width)
        places = places + kinds[0]
    word = graph.op("Gather", graph.weight("words", words), inputs.ids, axis=0)
    place = graph.op("Gather", graph.weight("places", places), inputs.positions, axis=0)
    scale, bias = reader.norm("embeddings.LayerNorm", width)
    summed = graph.op("Add", word, place)
    state = layer_norm(graph, summed, "embeddings.norm", scale, bias, sizes.layer_norm_eps)
    if width == sizes.hidden_size:
        return state
    # In float32 whatever the precision: a thousandth of the model's work.
    project = reader.linear("embeddings_project", sizes.hidden_size, width)
    weight, shift = (
        graph.weight("project.weight", project.weight),
        graph.weight("project.bias", project.bias),
    )
    return graph.op("Gemm", state, weight, shift)


def _cut(graph: GraphBuilder, bias: str, inputs: PackedInputs) -> str:
    """The part of a bias (1, heads, L, L) for S positions, once for all layers."""
    longest = graph.op("Shape", inputs.gather, start=1, end=2)
    return graph.op(
        "Slice",
        bias,
        graph.weight("bias_starts", np.array([0, 0], np.int64)),
        graph.op("Concat", longest, longest, axis=0),
        graph.weight("bias_axes", np.array([2, 3], np.int64)),
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """One post-norm transformer block."""

    site: Site
    reader: _Reader
    sizes: EncoderConfig
    family: Family
    name: str
    bias: str | None

    def add(self, state: str) -> str:
        """(T, H) to (T, H)."""
        size, inner, family = self.sizes.hidden_size, self.sizes.intermediate_size, self.family
        layers = Attention(
            query=self._linear(family.query, size, size),
            key=self._linear(family.key, size, size),
            value=self._linear(family.value, size, size),
            output=self._linear(family.output, size, size),
            heads=self.sizes.num_attention_heads,
            bias=self.bias,
        )
        attended = self_attention(
            self.site.graph, state, layers, arithmetic=self.site.arithmetic, inputs=self.site.inputs
        )
        state = self._add_and_norm(attended, state, family.attention_norm)
        wide = self.site.arithmetic.apply(
            self.site.graph, state, [self._linear(family.widen, inner, size)]
        )[0]
        active = activation(self.site.graph, wide, self.sizes.hidden_act)
        narrow = self._linear(family.narrow, size, inner)
        projected = self.site.arithmetic.apply(self.site.graph, active, [narrow])[0]
        return self._add_and_norm(projected, state, family.norm)

    def _linear(self, name: str, rows: int, columns: int) -> Linear:
        return self.reader.linear(f"{self.name}.{name}", rows, columns)

    def _add_and_norm(self, value: str, residual: str, name: str) -> str:
        full = f"{self.name}.{name}"
        scale, bias = self.reader.norm(full, self.sizes.hidden_size)
        summed = self.site.graph.op("Add", value, residual)
        return layer_norm(self.site.graph, summed, full, scale, bias, self.sizes.layer_norm_eps)
