"""BERT-like encoders (a norm after each residual sum): one builder, and a table of names for each family.

Source: BERT (arXiv:1810.04805); tensor names as in transformers' modeling_bert.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.encoder_config import Dimensions, EncoderConfig
from nestvec.export.graph.types import Float32Array
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.arithmetic import Floating, Linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_spec import AttentionSpec
from nestvec.export.layers.blocks import Encoder, feed_forward, layer_norm
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.relative_positions import PositionTerms, RelativePositions

WORD_EMBEDDINGS: Final = "embeddings.word_embeddings.weight"
TYPE_EMBEDDINGS: Final = "embeddings.token_type_embeddings.weight"
POSITION_EMBEDDINGS: Final = "embeddings.position_embeddings.weight"
TASK_EMBEDDINGS: Final = "embeddings.task_type_embeddings.weight"
# Prefixes of checkpoints with a head, tried after a family's own.
PREFIXES: Final = ("model.", "encoder.")


@dataclass(frozen=True, slots=True)
class PostNormEncoder:
    """How a family differs from BERT; tensors of a block are named below the block's name, without `.weight`.

    Attributes:
        prefix: Under which checkpoints with a head keep the encoder, such as "bert.".
        layer: Name of a block, with its number in braces.
        projection: Name of the layer between word embeddings that are narrower than H and the first block.
        query: Name of the query layer.
        key: Name of the key layer.
        value: Name of the value layer.
        output: Name of attention's output layer.
        attention_norm: Name of the norm behind attention.
        mlp_up: Name of the MLP's first layer.
        mlp_gate_up: Name of a gated MLP's two first layers in one, the activated one first; "" for a plain MLP.
        mlp_down: Name of the MLP's last layer.
        mlp_norm: Name of the norm behind the MLP.
        fields: For fields of `EncoderConfig`, the family's name in config.json or a fixed value.
        positions_after_padding: Whether positions count from `pad_token_id` + 1 (fairseq's habit).
        projects_embeddings: Whether word embeddings may be narrower than H.
        always_projects: Whether there is a layer behind them even where they are not.
        has_position_embeddings: Whether there is a table of positions.
        relative_positions: What attention adds for the distance between tokens; None for nothing.
    """

    prefix: str
    layer: str = "encoder.layer.{}"
    projection: str = "embeddings_project"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    mlp_up: str = "intermediate.dense"
    mlp_gate_up: str = ""
    mlp_down: str = "output.dense"
    mlp_norm: str = "output.LayerNorm"
    fields: Mapping[str, Any] = field(default_factory=dict)
    positions_after_padding: bool = False
    projects_embeddings: bool = False
    always_projects: bool = False
    has_position_embeddings: bool = True
    relative_positions: RelativePositions | None = None

    def read(self, config: Mapping[str, Any]) -> EncoderConfig:
        """Take the fields that the graph depends on out of a config.json.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        fields: dict[str, Any] = dict.fromkeys(
            ("first_position", "relative_buckets", "task_types"), 0
        )
        fields |= {"embedding_size": "hidden_size", **self.fields}
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
        """Read the sizes that serving needs.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        return self.read(config).dimensions

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the encoder to a graph: ids [T] to token states [T, H] after each layer.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        sizes = self.read(config)
        prefixes = ("", self.prefix, *PREFIXES)
        prefix = common_prefix(context.weights, WORD_EMBEDDINGS, prefixes)
        builder = _Builder(context, prefix, sizes, self)
        embedded = builder.embeddings()
        terms_of = (
            self.relative_positions.build(config, sizes, context, prefix)
            if self.relative_positions is not None
            else lambda _: PositionTerms()
        )
        names = self.block_names(config, sizes.num_hidden_layers)
        blocks = [_Block(builder, name, terms_of(name)) for name in names]
        states = context.stack(embedded, [block.add for block in blocks], sizes.hidden_size)
        return Encoder(tuple(states), sizes.hidden_size)

    def block_names(self, config: Mapping[str, Any], count: int) -> list[str]:
        """Names of the blocks' tensors, in the order in which the blocks run; blocks of one name share their weights.

        Raises:
            FormatError: A field is of the wrong type, or has a value that is not supported.
        """
        del config
        return [self.layer.format(number) for number in range(count)]


@dataclass(frozen=True, slots=True)
class _Builder:
    """Adds parts of an encoder to a graph, whatever prefix and spelling of LayerNorm the checkpoint has."""

    context: BuildContext
    prefix: str
    sizes: EncoderConfig
    family: PostNormEncoder

    def embeddings(self) -> str:
        """Add word, token type and position embeddings, their norm, and a projection if they are narrower than H."""
        context, sizes = self.context, self.sizes
        graph, width = context.graph, sizes.embedding_size
        token_types = None
        words = self._table(WORD_EMBEDDINGS, sizes.vocab_size)
        if sizes.type_vocab_size:
            token_types = self._table(TYPE_EMBEDDINGS, sizes.type_vocab_size)
        if sizes.task_types:
            words = words + self._table(TASK_EMBEDDINGS, sizes.task_types)[0]
        embedded = context.embed(words, token_types)
        if self.family.has_position_embeddings:
            positions = self._table(POSITION_EMBEDDINGS, sizes.max_position_embeddings)
            table = graph.weight("places", positions[sizes.first_position :])
            rows = graph.op("Gather", table, context.inputs.positions, axis=0)
            embedded = graph.op("Add", embedded, rows)
        state = self.norm(embedded, "embeddings.LayerNorm", width, name="embeddings.norm")
        if width == sizes.hidden_size and not self.family.always_projects:
            return state
        # In floats whatever the precision: a thousandth of the model's work.
        projection = self.linear(self.family.projection, sizes.hidden_size, width)
        return Floating().apply(graph, state, [projection])[0]

    def _table(self, name: str, rows: int) -> Float32Array:
        """Read embeddings, [rows, embedding_size]."""
        return self.context.weights.get(f"{self.prefix}{name}", (rows, self.sizes.embedding_size))

    def linear(self, name: str, rows: int, columns: int) -> Linear:
        """Read a layer with its bias."""
        return self.context.linear(name, rows, columns, prefix=self.prefix, has_bias=True)

    def norm(self, state: str, tensor: str, size: int, *, name: str) -> str:
        """Add a layer norm; checkpoints converted from TensorFlow call scale and bias gamma and beta."""
        full = f"{self.prefix}{tensor}"
        weights = self.context.weights
        scale_name, bias_name = (
            ("gamma", "beta") if f"{full}.gamma" in weights else ("weight", "bias")
        )
        scale = weights.get(f"{full}.{scale_name}", (size,))
        bias = weights.get(f"{full}.{bias_name}", (size,))
        return layer_norm(self.context.graph, state, name, scale, bias, self.sizes.layer_norm_eps)


@dataclass(frozen=True, slots=True)
class _Block:
    """One transformer block."""

    builder: _Builder
    name: str
    terms: PositionTerms

    def add(self, state: str) -> str:
        """Add the block, [T, H] to [T, H]."""
        context, family, sizes = self.builder.context, self.builder.family, self.builder.sizes
        size, inner = sizes.hidden_size, sizes.intermediate_size
        spec = AttentionSpec(
            query=self._linear(family.query, size, size),
            key=self._linear(family.key, size, size),
            value=self._linear(family.value, size, size),
            output=self._linear(family.output, size, size),
            heads=sizes.num_attention_heads,
            bias=self.terms.bias,
            bias_rows=self.terms.bias_rows,
            position_scores=self.terms.position_scores,
            packed_scores=self.terms.packed_scores,
            scale=self.terms.scale,
        )
        attended = self_attention(context, state, spec)
        state = self._add_and_norm(attended, state, family.attention_norm)
        first, last = self._first_layers(), self._linear(family.mlp_down, size, inner)
        projected = feed_forward(context, state, first, last, sizes.hidden_act)
        return self._add_and_norm(projected, state, family.mlp_norm)

    def _first_layers(self) -> list[Linear]:
        """Read the MLP's first layer, or both of a gated one, whose first layers have no bias."""
        builder, family = self.builder, self.builder.family
        inner, size = builder.sizes.intermediate_size, builder.sizes.hidden_size
        if not family.mlp_gate_up:
            return [self._linear(family.mlp_up, inner, size)]
        name = f"{self.name}.{family.mlp_gate_up}"
        return builder.context.split_linear(name, 2, inner, size, prefix=builder.prefix)

    def _linear(self, name: str, rows: int, columns: int) -> Linear:
        return self.builder.linear(f"{self.name}.{name}", rows, columns)

    def _add_and_norm(self, value: str, residual: str, tensor: str) -> str:
        name = f"{self.name}.{tensor}"
        summed = self.builder.context.graph.op("Add", value, residual)
        return self.builder.norm(summed, name, self.builder.sizes.hidden_size, name=name)
