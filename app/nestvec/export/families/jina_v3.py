"""Jina's third embedding model (arXiv:2409.10173): XLM-RoBERTa's blocks with rotary positions.

On the Hub the weights of its adapters lie beside the weights that they change; the plain ones are used.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from nestvec.export.config.config_fields import Overlaid, positive, positive_number
from nestvec.export.families.rotary_encoder import (
    TRANSFORMERS_NAMES,
    RotaryEncoder,
    RotaryEncoderConfig,
    TensorNames,
    read_sizes,
)

AUTHORS_NAMES: Final = TensorNames(
    embedding_norm="emb_ln",
    layer="encoder.layers.{}",
    output="mixer.out_proj",
    mlp_up="mlp.fc1",
    mlp_down="mlp.fc2",
    attention_norm="norm1",
    mlp_norm="norm2",
    qkv="mixer.Wqkv",
)


def read(config: Mapping[str, Any]) -> RotaryEncoderConfig:
    """Take the fields that the graph depends on out of a config.json, the authors' or transformers'.

    Raises:
        FormatError: A field is missing or of the wrong type.
    """
    own = {"rope_theta": config["rotary_emb_base"]} if "rotary_emb_base" in config else {}
    return read_sizes(
        Overlaid(own, config),
        default_theta=20_000.0,
        type_vocab_size=positive(config, "type_vocab_size", 1),
        layer_norm_eps=positive_number(config, "layer_norm_eps", 1e-5),
        is_gated=False,
        has_projection_bias=True,
        has_mlp_up_bias=True,
        has_mlp_down_bias=True,
    )


JINA_V3: Final = RotaryEncoder(
    "roberta.",
    read,
    (replace(TRANSFORMERS_NAMES, mlp_up="mlp.fc1", mlp_down="mlp.fc2"), AUTHORS_NAMES),
)
