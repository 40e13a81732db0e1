"""DeBERTa's second and third models (arXiv:2111.09543): BERT's blocks with disentangled attention."""

from collections.abc import Mapping
from typing import Any, Final

from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.config.encoder_config import EncoderConfig
from nestvec.export.families.post_norm import Family
from nestvec.export.layers.disentangled import Disentangled


class _Deberta(Family):
    """The family; refuses what its larger second models have beside."""

    __slots__ = ()

    @override
    def read(self, config: Mapping[str, Any]) -> EncoderConfig:
        """See `Family.read`."""
        if config.get("position_biased_input", True) is not False:
            raise FormatError("config.json: 'position_biased_input' must be false")
        if config.get("conv_kernel_size"):
            raise FormatError("config.json: 'conv_kernel_size' is not supported")
        width = config.get("embedding_size")
        if width is not None and width != config.get("hidden_size"):
            raise FormatError("config.json: 'embedding_size' must be 'hidden_size'")
        return super().read(config)


DEBERTA: Final = _Deberta(
    "deberta.",
    query="attention.self.query_proj",
    key="attention.self.key_proj",
    value="attention.self.value_proj",
    has_positions=False,
    relative=Disentangled(
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.pos_query_proj",
        "attention.self.pos_key_proj",
    ),
)
