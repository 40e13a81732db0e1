"""DeBERTa's second and third models (arXiv:2111.09543): BERT's blocks with disentangled attention."""

from collections.abc import Mapping
from typing import Any, Final

from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.config.encoder_config import EncoderConfig
from nestvec.export.families.post_norm import PostNormEncoder
from nestvec.export.layers.disentangled_attention import DisentangledAttention


class _Deberta(PostNormEncoder):
    """The family without the convolution and the narrow embeddings that its larger second models have."""

    __slots__ = ()

    @override
    def read(self, config: Mapping[str, Any]) -> EncoderConfig:
        """Read the fields that the graph depends on.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
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
    has_position_embeddings=False,
    relative_positions=DisentangledAttention(
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        position_query="attention.self.pos_query_proj",
        position_key="attention.self.pos_key_proj",
    ),
)
