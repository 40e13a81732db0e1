"""BERT: weights to a packed graph.

Source: BERT (arXiv:1810.04805); tensor names as in Hugging Face's `BertModel`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.errors import FormatError
from app.export.blocks import (
    Attention,
    PackedInputs,
    activation,
    layer_norm,
    linear,
    packed_inputs,
    self_attention,
)
from app.export.graph import GraphBuilder
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

    def matrix(self, name: str, rows: int, columns: int) -> Floats:
        """A torch Linear's (out, in) weight as (in, out)."""
        return self.weights.get(f"{self.prefix}{name}.weight", (rows, columns)).T

    def table(self, name: str, rows: int, columns: int) -> Floats:
        return self.weights.get(f"{self.prefix}{name}.weight", (rows, columns))

    def bias(self, name: str, size: int) -> Floats:
        return self.weights.get(f"{self.prefix}{name}.bias", (size,))

    def norm(self, name: str, size: int) -> tuple[Floats, Floats]:
        """Scale and bias; checkpoints converted from TensorFlow call them gamma and beta."""
        old = f"{self.prefix}{name}.gamma" in self.weights
        scale, bias = ("gamma", "beta") if old else ("weight", "bias")
        full = f"{self.prefix}{name}."
        return self.weights.get(full + scale, (size,)), self.weights.get(full + bias, (size,))


def build_bert(config: Mapping[str, Any], weights: Weights) -> GraphBuilder:
    """Build the packed graph: ids (T,) to token states `hidden` (T, H).

    Raises:
        FormatError: Configuration and weights do not make a BERT.
    """
    bert = BertConfig.read(config)
    reader = _Reader(weights, common_prefix(weights, WORDS, ("", "bert.", "model.", "encoder.")))
    graph = GraphBuilder("bert")
    inputs = packed_inputs(graph)
    state = _embeddings(graph, reader, bert, inputs)
    for number in range(bert.num_hidden_layers):
        state = _layer(graph, state, reader, bert, f"encoder.layer.{number}", inputs)
    graph.output(state, "hidden", ("T", bert.hidden_size))
    return graph


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


def _layer(
    graph: GraphBuilder,
    state: str,
    reader: _Reader,
    bert: BertConfig,
    name: str,
    inputs: PackedInputs,
) -> str:
    """One post-norm transformer block."""
    size, inner = bert.hidden_size, bert.intermediate_size
    own = f"{name}.attention.self"
    attention = Attention(
        *(reader.matrix(f"{own}.{part}", size, size) for part in ("query", "key", "value")),
        *(reader.bias(f"{own}.{part}", size) for part in ("query", "key", "value")),
    )
    attended = self_attention(
        graph, state, own, attention, heads=bert.num_attention_heads, inputs=inputs
    )
    state = _project_add_norm(
        graph,
        attended,
        state,
        reader,
        f"{name}.attention.output",
        (size, size, bert.layer_norm_eps),
    )
    wide = linear(
        graph,
        state,
        f"{name}.intermediate",
        reader.matrix(f"{name}.intermediate.dense", inner, size),
        reader.bias(f"{name}.intermediate.dense", inner),
    )
    active = activation(graph, wide, bert.hidden_act)
    return _project_add_norm(
        graph, active, state, reader, f"{name}.output", (size, inner, bert.layer_norm_eps)
    )


def _project_add_norm(
    graph: GraphBuilder,
    value: str,
    residual: str,
    reader: _Reader,
    name: str,
    shape: tuple[int, int, float],
) -> str:
    """Output projection, residual, norm; `shape` is (out, in, epsilon)."""
    rows, columns, epsilon = shape
    weight, bias = reader.matrix(f"{name}.dense", rows, columns), reader.bias(f"{name}.dense", rows)
    projected = linear(graph, value, name, weight, bias)
    scale, shift = reader.norm(f"{name}.LayerNorm", rows)
    return layer_norm(
        graph, graph.op("Add", projected, residual), f"{name}.norm", scale, shift, epsilon
    )
