"""Jina's second embedding models (arXiv:2310.19923): BERT's blocks with ALiBi and a gated MLP."""

from collections.abc import Mapping
from typing import Any, Final

from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import Overlaid
from nestvec.export.config.encoder_config import EncoderConfig
from nestvec.export.families.post_norm import PostNormEncoder
from nestvec.export.layers.relative_positions import Alibi

# Activation by `feed_forward_type`.
GATES: Final = {"geglu": "gelu", "reglu": "relu"}


class _JinaBert(PostNormEncoder):
    """The family, whose kind of gate implies the activation."""

    __slots__ = ()

    @override
    def read(self, config: Mapping[str, Any]) -> EncoderConfig:
        """Read the fields that the graph depends on.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        gate = config.get("feed_forward_type", "original")
        if not isinstance(gate, str) or gate not in GATES:
            raise FormatError(
                f"config.json: feed_forward_type '{gate}' is not supported; known: {', '.join(GATES)}"
            )
        own = {"position_embedding_type": "absolute", "hidden_act": GATES[gate]}
        as_bert = Overlaid(own, config)
        return super().read(as_bert)


JINA_BERT: Final = _JinaBert(
    "bert.",
    mlp_gate_up="mlp.gated_layers",
    mlp_down="mlp.wo",
    mlp_norm="mlp.layernorm",
    has_position_embeddings=False,
    relative_positions=Alibi(),
)
