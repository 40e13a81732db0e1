"""GTE's encoder (arXiv:2407.19669): BERT with rotary positions and a gated MLP; Snowflake's Arctic 2 (medium) too."""

from collections.abc import Mapping
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.families.rotary_encoder import (
    TRANSFORMERS,
    Names,
    RotaryEncoder,
    RotarySizes,
    check_fixed,
    read_sizes,
)

# Fields of the authors' code, and the one value that this graph has.
FIXED: Final[Mapping[str, object]] = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "pack_qkv": True,
}
OWN: Final = Names(
    embedding_norm="embeddings.LayerNorm",
    layer="encoder.layer.{}",
    output="attention.o_proj",
    fused_gate="mlp.up_gate_proj",
    down="mlp.down_proj",
    attention_norm="attn_ln",
    mlp_norm="mlp_ln",
    fused="attention.qkv_proj",
)


def read(config: Mapping[str, Any]) -> RotarySizes:
    """Take the fields out of a config.json.

    Raises:
        FormatError: A field is missing, of the wrong type, or asks for what this graph is not.
    """
    check_fixed(config, FIXED)
    kinds = config.get("type_vocab_size", 1)
    if not isinstance(kinds, int) or isinstance(kinds, bool) or kinds < 0:
        raise FormatError("config.json: 'type_vocab_size' must be an integer")
    return read_sizes(
        config,
        theta=160_000.0,
        type_vocab_size=kinds,
        projection_bias=True,
        narrowing_bias=True,
    )


GTE: Final = RotaryEncoder("gte.", read, (TRANSFORMERS, OWN))
