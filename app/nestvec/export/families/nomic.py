"""NomicBERT (arXiv:2402.01613): BERT with rotary positions and a gated MLP, no biases in its layers."""

from collections.abc import Mapping
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive
from nestvec.export.families.rotary_encoder import (
    TRANSFORMERS,
    Names,
    RotaryEncoder,
    RotarySizes,
    check_fixed,
    read_sizes,
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
# transformers' names, by the authors'.
OWN_FIELDS: Final[Mapping[str, str]] = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
    "rope_theta": "rotary_emb_base",
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
    known = dict(config)
    if "n_embd" in config:
        known |= {name: config.get(own) for name, own in OWN_FIELDS.items()}
    known["hidden_act"] = "silu"
    try:
        return read_sizes(
            known, theta=1000.0, type_vocab_size=positive(config, "type_vocab_size", 2)
        )
    except FormatError as error:
        message = error.message
        for name, own in OWN_FIELDS.items() if "n_embd" in config else ():
            message = message.replace(f"'{name}'", f"'{own}'")
        raise FormatError(message) from error


NOMIC: Final = RotaryEncoder("nomic_bert.", read, (TRANSFORMERS, OWN))
