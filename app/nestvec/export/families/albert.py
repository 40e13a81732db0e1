"""ALBERT (arXiv:1909.11942): BERT's blocks, of which many share one's weights, behind narrow word embeddings."""

from collections.abc import Mapping
from typing import Any, Final

from typing_extensions import override

from nestvec.export.config.config_fields import check_fixed, positive
from nestvec.export.config.encoder_config import EncoderConfig
from nestvec.export.families.post_norm import PostNormEncoder


class _Albert(PostNormEncoder):
    """The family, with groups of one block, as all published models have them."""

    __slots__ = ()

    @override
    def read(self, config: Mapping[str, Any]) -> EncoderConfig:
        """Read the fields that the graph depends on.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        check_fixed(config, {"inner_group_num": 1})
        _groups(config)
        return super().read(config)

    @override
    def block_names(self, config: Mapping[str, Any], count: int) -> list[str]:
        """Names of the blocks' tensors: the blocks are shared out among the groups in order."""
        groups = _groups(config)
        return [self.layer.format(number * groups // count) for number in range(count)]


def _groups(config: Mapping[str, Any]) -> int:
    return positive(config, "num_hidden_groups", 1)


ALBERT: Final = _Albert(
    "albert.",
    layer="encoder.albert_layer_groups.{}.albert_layers.0",
    projection="encoder.embedding_hidden_mapping_in",
    query="attention.query",
    key="attention.key",
    value="attention.value",
    output="attention.dense",
    attention_norm="attention.LayerNorm",
    mlp_up="ffn",
    mlp_down="ffn_output",
    mlp_norm="full_layer_layer_norm",
    projects_embeddings=True,
    always_projects=True,
)
