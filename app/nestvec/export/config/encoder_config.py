"""Fields of a config.json that encoders of BERT's kind are built from, by whatever names a family has for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from nestvec.errors import FormatError


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes that serving needs.

    Attributes:
        max_positions: The most tokens that the position table takes; None where there is no table.
    """

    hidden_size: int
    vocab_size: int
    max_positions: int | None


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """What the graph depends on.

    Attributes:
        embedding_size: Width of the word table; `hidden_size` but in families that project it.
        type_vocab_size: Rows of the token type table; 0 where there is none.
        first_position: Row of the position table that the first token takes.
        relative_buckets: Of a relative position bias; 0 where there is none.
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
    layer_norm_eps: float
    hidden_act: str

    @property
    def dimensions(self) -> Dimensions:
        """Rows of the position table before the first one's are never used."""
        return Dimensions(
            self.hidden_size, self.vocab_size, self.max_position_embeddings - self.first_position
        )

    @classmethod
    def read(cls, config: Mapping[str, Any], fields: Mapping[str, Any]) -> Self:
        """Take the fields out of a config.json.

        Args:
            config: The file's content.
            fields: By our name, what a family has: another name (str) or a fixed value.

        Raises:
            FormatError: A field is missing or of the wrong type, or asks for what this graph is not.
        """
        position = config.get("position_embedding_type", "absolute")
        if position not in (None, "absolute"):
            raise FormatError(f"config.json: position_embedding_type '{position}' is not supported")
        if config.get("is_decoder"):
            raise FormatError("config.json: is_decoder is not supported for encoders")
        made = cls(
            **{
                name: _field(config, name, kind, fields)
                for name, kind in cls.__annotations__.items()
            }
        )
        made._check(fields)
        return made

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
    """A field by a family's name for it, or its fixed value."""
    said = fields.get(name, name)
    found = said if not isinstance(said, str) else config.get(said)
    if kind is float and isinstance(found, int) and not isinstance(found, bool):
        found = float(found)
    if not isinstance(found, kind) or isinstance(found, bool):
        shown = said if isinstance(said, str) else name
        raise FormatError(f"config.json: '{shown}' is missing or not a {kind.__name__}")
    return found
