"""NomicBERT (arXiv:2402.01613): BERT with rotary positions and a gated MLP, no biases in its layers."""

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

# What the authors' code calls a field, and the one value that this graph has.
FIXED: Final[Mapping[str, object]] = {
    "prenorm": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "use_rms_norm": False,
    "causal": False,
    "activation_function": "swiglu",
}
OWN: Final = Names(
    embedding_norm="emb_ln",
    layer="encoder.layers.{}",
    output="attn.out_proj",
    gate="mlp.fc12",
    up="mlp.fc11",
    down="mlp.fc2",
    attention_norm="norm1",
    mlp_norm="norm2",
    fused="attn.Wqkv",
)


def read(config: Mapping[str, Any]) -> RotarySizes:
    """Take the fields out of a config.json, by either set of names.

    Raises:
        FormatError: A field is missing, of the wrong type, or asks for what this graph is not.
    """
    check_fixed(config, FIXED)
    if config.get("rotary_scaling_factor") is not None:
        raise FormatError("config.json: 'rotary_scaling_factor' is not supported")
    old = "n_embd" in config
    hidden = positive(config, "n_embd" if old else "hidden_size")
    heads = positive(config, "n_head" if old else "num_attention_heads")
    rope = {"rope_theta": config.get("rotary_emb_base")} if old else config
    return RotarySizes(
        vocab_size=positive(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=positive(config, "n_inner" if old else "intermediate_size"),
        num_hidden_layers=positive(config, "n_layer" if old else "num_hidden_layers"),
        num_attention_heads=heads,
        max_positions=positive(config, "n_positions" if old else "max_position_embeddings"),
        type_vocab_size=positive(config, "type_vocab_size", 2),
        layer_norm_eps=positive_number(
            config, "layer_norm_epsilon" if old else "layer_norm_eps", 1e-12
        ),
        hidden_act="silu",
        frequencies=read_frequencies(rope, head_width(hidden, heads), 1000.0),
    )


NOMIC: Final = RotaryEncoder("nomic_bert.", read, (TRANSFORMERS, OWN))
