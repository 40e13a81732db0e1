"""GTE's encoder (arXiv:2407.19669): BERT with rotary positions and a gated MLP; Snowflake's Arctic 2 (medium) too."""

from collections.abc import Mapping
from typing import Any, Final

from app.errors import FormatError
from app.export.config_fields import positive, positive_number
from app.export.frequencies import read_frequencies
from app.export.rotary_encoder import (
    TRANSFORMERS,
    Names,
    RotaryEncoder,
    RotarySizes,
    check_fixed,
    head_width,
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
    hidden, heads = positive(config, "hidden_size"), positive(config, "num_attention_heads")
    kinds = config.get("type_vocab_size", 1)
    if not isinstance(kinds, int) or isinstance(kinds, bool) or kinds < 0:
        raise FormatError("config.json: 'type_vocab_size' must be an integer")
    return RotarySizes(
        vocab_size=positive(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=positive(config, "intermediate_size"),
        num_hidden_layers=positive(config, "num_hidden_layers"),
        num_attention_heads=heads,
        max_positions=positive(config, "max_position_embeddings"),
        type_vocab_size=kinds,
        layer_norm_eps=positive_number(config, "layer_norm_eps", 1e-12),
        hidden_act=str(config.get("hidden_act", "gelu")),
        frequencies=read_frequencies(config, head_width(hidden, heads), 160_000.0),
        projection_bias=True,
        narrowing_bias=True,
    )


GTE: Final = RotaryEncoder("gte.", read, (TRANSFORMERS, OWN))
