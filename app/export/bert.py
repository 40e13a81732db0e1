"""BERT: weights to a packed graph.

Source: BERT (arXiv:1810.04805); tensor names as in Hugging Face's `BertModel`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.errors import FormatError
from app.export.arithmetic import Arithmetic, Linear
from app.export.attention import Attention, self_attention
from app.export.blocks import Encoder, activation, layer_norm
from app.export.graph import GraphBuilder
from app.export.inputs import PackedInputs
from app.export.weights import Weights, common_prefix

Floats = NDArray[np.float32]
WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The fields of config.json that the graph depends on."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_act: str

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Take the fields out of a config.json.

        Raises:
            FormatError: A field is missing or of the wrong type, or asks for what this graph is not.
        """
        position = config.get("position_embedding_type", "absolute")
        if position != "absolute":
            raise FormatError(f"config.json: position_embedding_type '{position}' is not supported")
        if config.get("is_decoder"):
            raise FormatError("config.json: is_decoder is not supported for BERT")
        values: dict[str, Any] = {}
        for name, kind in cls.__annotations__.items():
            found = config.get(name)
            if kind is float and isinstance(found, int) and not isinstance(found, bool):
                found = float(found)
            if not isinstance(found, kind) or isinstance(found, bool):
                raise FormatError(f"config.json: '{name}' is missing or not a {kind.__name__}")
            values[name] = found
        made = cls(**values)
        sizes = [v for v in values.values() if isinstance(v, int)]
        if min(sizes) < 1 or made.hidden_size % made.num_attention_heads:
            raise FormatError("config.json: sizes must be positive and heads divide hidden_size")
        return made


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads BERT tensors, whatever prefix and LayerNorm spelling the checkpoint has."""

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


def build_bert(
    graph: GraphBuilder,
    config: Mapping[str, Any],
    weights: Weights,
    inputs: PackedInputs,
    arithmetic: Arithmetic,
) -> Encoder:
    """Add BERT to a graph: ids (T,) to token states (T, H) after each layer.

    Raises:
        FormatError: Configuration and weights do not make a BERT.
    """
    bert = BertConfig.read(config)
    reader = _Reader(weights, common_prefix(weights, WORDS, ("", "bert.", "model.", "encoder.")))
    states = [_embeddings(graph, reader, bert, inputs)]
    for number in range(bert.num_hidden_layers):
        block = _Block(graph, reader, bert, f"encoder.layer.{number}", arithmetic)
        states.append(block.add(states[-1], inputs))
    return Encoder(tuple(states), bert.hidden_size)


def _embeddings(
    graph: GraphBuilder, reader: _Reader, bert: BertConfig, inputs: PackedInputs
) -> str:
    """Word + position + type 0 (one text an input: always type 0), then norm."""
    size = bert.hidden_size
    words = reader.table("embeddings.word_embeddings", bert.vocab_size, size)
    places = reader.table("embeddings.position_embeddings", bert.max_position_embeddings, size)
    kinds = reader.table("embeddings.token_type_embeddings", bert.type_vocab_size, size)
    word = graph.op("Gather", graph.weight("words", words), inputs.ids, axis=0)
    place = graph.op("Gather", graph.weight("places", places + kinds[0]), inputs.positions, axis=0)
    scale, bias = reader.norm("embeddings.LayerNorm", size)
    summed = graph.op("Add", word, place)
    return layer_norm(graph, summed, "embeddings.norm", scale, bias, bert.layer_norm_eps)


@dataclass(frozen=True, slots=True)
class _Block:
    """One post-norm transformer block."""

    graph: GraphBuilder
    reader: _Reader
    bert: BertConfig
    name: str
    arithmetic: Arithmetic

    def add(self, state: str, inputs: PackedInputs) -> str:
        """(T, H) to (T, H)."""
        size, inner = self.bert.hidden_size, self.bert.intermediate_size
        own = f"{self.name}.attention.self"
        layers = Attention(
            query=self.reader.linear(f"{own}.query", size, size),
            key=self.reader.linear(f"{own}.key", size, size),
            value=self.reader.linear(f"{own}.value", size, size),
            output=self.reader.linear(f"{self.name}.attention.output.dense", size, size),
        )
        attended = self_attention(
            self.graph,
            state,
            layers,
            arithmetic=self.arithmetic,
            heads=self.bert.num_attention_heads,
            inputs=inputs,
        )
        state = self._add_and_norm(attended, state, f"{self.name}.attention.output")
        widen = self.reader.linear(f"{self.name}.intermediate.dense", inner, size)
        narrow = self.reader.linear(f"{self.name}.output.dense", size, inner)
        wide = self.arithmetic.apply(self.graph, state, [widen])[0]
        active = activation(self.graph, wide, self.bert.hidden_act)
        projected = self.arithmetic.apply(self.graph, active, [narrow])[0]
        return self._add_and_norm(projected, state, f"{self.name}.output")

    def _add_and_norm(self, value: str, residual: str, name: str) -> str:
        scale, bias = self.reader.norm(f"{name}.LayerNorm", self.bert.hidden_size)
        summed = self.graph.op("Add", value, residual)
        return layer_norm(self.graph, summed, f"{name}.norm", scale, bias, self.bert.layer_norm_eps)
