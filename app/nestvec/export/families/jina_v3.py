"""Jina's third embedding model (arXiv:2409.10173): XLM-RoBERTa's blocks with rotary positions.

On the Hub its adapters' weights lie beside those they change; without one the plain weights are taken.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from nestvec.export.config.config_fields import positive, positive_number
from nestvec.export.families.rotary_encoder import (
    TRANSFORMERS,
    Names,
    RotaryEncoder,
    RotarySizes,
    read_sizes,
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
    known = dict(config)
    if "rotary_emb_base" in config:
        known["rope_theta"] = config["rotary_emb_base"]
    return read_sizes(
        known,
        theta=20_000.0,
        type_vocab_size=positive(config, "type_vocab_size", 1),
        layer_norm_eps=positive_number(config, "layer_norm_eps", 1e-5),
        is_gated=False,
        projection_bias=True,
        widening_bias=True,
        narrowing_bias=True,
    )


JINA_V3: Final = RotaryEncoder(
    "roberta.", read, (replace(TRANSFORMERS, up="mlp.fc1", down="mlp.fc2"), OWN)
)
