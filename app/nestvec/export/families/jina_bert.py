"""Jina's second embedding models (arXiv:2310.19923): BERT's blocks with ALiBi and a gated MLP."""

from collections.abc import Mapping
from typing import Any, Final

from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.config.encoder_config import EncoderConfig
from nestvec.export.families.post_norm import Family
from nestvec.export.layers.relative import Alibi

GATES: Final = {"geglu": "gelu", "reglu": "relu"}


class _JinaBert(Family):
    """The family; its gate says which activation."""

    __slots__ = ()

    @override
    def read(self, config: Mapping[str, Any]) -> EncoderConfig:
        """See `Family.read`."""
        gate = config.get("feed_forward_type", "original")
        if not isinstance(gate, str) or gate not in GATES:
            raise FormatError(
                f"config.json: feed_forward_type '{gate}' is not supported; known: {', '.join(GATES)}"
            )
        known = {**config, "position_embedding_type": "absolute", "hidden_act": GATES[gate]}
        return super().read(known)


JINA_BERT: Final = _JinaBert(
    "bert.",
    gated="mlp.gated_layers",
    narrow="mlp.wo",
    norm="mlp.layernorm",
    has_positions=False,
    relative=Alibi(),
)
