"""Fields of a config.json that BERT-like encoders are built from, whatever a family calls them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from nestvec.errors import FormatError


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes that serving needs to know.

    Attributes:
        hidden_size: Width of the encoder's states.
        vocab_size: Number of token ids.
        max_positions: How many tokens the position table has room for; None for a model without a limit.
    """

    hidden_size: int
    vocab_size: int
    max_positions: int | None


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """What the graph depends on; fields are named as in BERT's config.json.

    Attributes:
        embedding_size: Width of the word embeddings; `hidden_size` except in families that project them.
        type_vocab_size: Rows of the token type embeddings; 0 for a family without them.
        first_position: Row of the position embeddings that the first token takes.
        relative_buckets: Number of buckets of a relative position bias; 0 for a family without one.
        task_types: Rows of a table of tasks, of which the first is every token's; 0 for a family without one.
    """

    vocab_size: int
    hidden_size: int
    embedding_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    type_vocab_size: int
    first_position: int
    relative_buckets: int
    task_types: int
    layer_norm_eps: float
    hidden_act: str

    @property
    def dimensions(self) -> Dimensions:
        """Sizes for serving; rows of the position embeddings before the first token's are never used."""
        return Dimensions(
            self.hidden_size, self.vocab_size, self.max_position_embeddings - self.first_position
        )

    @classmethod
    def read(cls, config: Mapping[str, Any], fields: Mapping[str, Any]) -> Self:
        """Take the fields out of a config.json.

        Args:
            config: The file's content.
            fields: For a field of this class, what a family has instead: another name (str) or a fixed value.

        Raises:
            FormatError: A field is missing or of the wrong type, or the graph does not support its value.
        """
        position = config.get("position_embedding_type", "absolute")
        if position not in (None, "absolute"):
            raise FormatError(f"config.json: position_embedding_type '{position}' is not supported")
        if config.get("is_decoder"):
            raise FormatError("config.json: is_decoder is not supported for encoders")
        sizes = cls(
            **{
                name: _field(config, name, kind, fields)
                for name, kind in cls.__annotations__.items()
            }
        )
        sizes._check(fields)
        return sizes

    def _check(self, fields: Mapping[str, Any]) -> None:
        positive = ("vocab_size", "hidden_size", "embedding_size", "intermediate_size")
        for name in (*positive, "num_hidden_layers", "num_attention_heads"):
            if getattr(self, name) < 1:
                raise FormatError(f"config.json: '{fields.get(name, name)}' must be positive")
        if self.max_position_embeddings <= self.first_position:
            raise FormatError("config.json: 'max_position_embeddings' leaves no position")
        if self.hidden_size % self.num_attention_heads:
            raise FormatError("config.json: sizes must be such that heads divide hidden_size")


def _field(config: Mapping[str, Any], name: str, kind: type, fields: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Read a field by a family's name for it, or take its fixed value."""
    source = fields.get(name, name)
    value = config.get(source) if isinstance(source, str) else source
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        shown = source if isinstance(source, str) else name
        raise FormatError(f"config.json: '{shown}' is missing or not a {kind.__name__}")
    return value
