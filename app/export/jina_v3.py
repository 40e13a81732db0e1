"""Jina's third embedding model (arXiv:2409.10173): XLM-RoBERTa's blocks with rotary positions.

On the Hub its adapters' weights lie beside those they change; without one the plain weights are taken.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from app.export.config_fields import positive, positive_number
from app.export.frequencies import read_frequencies
from app.export.rotary_encoder import (
    TRANSFORMERS,
    Names,
    RotaryEncoder,
    RotarySizes,
    head_width,
)

OWN: Final = Names(
    embedding_norm="emb_ln",
    layer="encoder.layers.{}",
    output="mixer.out_proj",
    up="mlp.fc1",
    down="mlp.fc2",
    attention_norm="norm1",
    mlp_norm="norm2",
    fused="mixer.Wqkv",
)


def read(config: Mapping[str, Any]) -> RotarySizes:
    """Take the fields out of a config.json, of the authors' or of transformers'.

    Raises:
        FormatError: A field is missing or of the wrong type.
    """
    hidden, heads = positive(config, "hidden_size"), positive(config, "num_attention_heads")
    rope = config
    if "rotary_emb_base" in config:
        rope = {"rope_theta": config["rotary_emb_base"]}
    return RotarySizes(
        vocab_size=positive(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=positive(config, "intermediate_size"),
        num_hidden_layers=positive(config, "num_hidden_layers"),
        num_attention_heads=heads,
        max_positions=positive(config, "max_position_embeddings"),
        type_vocab_size=positive(config, "type_vocab_size", 1),
        layer_norm_eps=positive_number(config, "layer_norm_eps", 1e-5),
        hidden_act=str(config.get("hidden_act", "gelu")),
        frequencies=read_frequencies(rope, head_width(hidden, heads), 20_000.0),
        is_gated=False,
        projection_bias=True,
        widening_bias=True,
        narrowing_bias=True,
    )


JINA_V3: Final = RotaryEncoder(
    "roberta.", read, (replace(TRANSFORMERS, up="mlp.fc1", down="mlp.fc2"), OWN)
)
