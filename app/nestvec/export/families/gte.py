"""GTE's encoder (arXiv:2407.19669): BERT with rotary positions and a gated MLP.

Snowflake's Arctic Embed 2.0 (medium) is one too.
"""

from collections.abc import Mapping
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import check_fixed
from nestvec.export.families.rotary_encoder import (
    TRANSFORMERS_NAMES,
    RotaryEncoder,
    RotaryEncoderConfig,
    TensorNames,
    read_sizes,
)

# Fields of the authors' code, and the one value of each that is supported.
FIXED: Final[Mapping[str, object]] = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "pack_qkv": True,
}
AUTHORS_NAMES: Final = TensorNames(
    embedding_norm="embeddings.LayerNorm",
    layer="encoder.layer.{}",
    output="attention.o_proj",
    mlp_up_gate="mlp.up_gate_proj",
    mlp_down="mlp.down_proj",
    attention_norm="attn_ln",
    mlp_norm="mlp_ln",
    qkv="attention.qkv_proj",
)


def read(config: Mapping[str, Any]) -> RotaryEncoderConfig:
    """Take the fields that the graph depends on out of a config.json.

    Raises:
        FormatError: A field is missing, of the wrong type, or has a value that is not supported.
    """
    check_fixed(config, FIXED)
    token_types = config.get("type_vocab_size", 1)
    if not isinstance(token_types, int) or isinstance(token_types, bool) or token_types < 0:
        raise FormatError("config.json: 'type_vocab_size' must be an integer")
    return read_sizes(
        config,
        default_theta=160_000.0,
        type_vocab_size=token_types,
        has_projection_bias=True,
        has_mlp_down_bias=True,
    )


GTE: Final = RotaryEncoder("gte.", read, (TRANSFORMERS_NAMES, AUTHORS_NAMES))
