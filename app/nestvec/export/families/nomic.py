"""NomicBERT (arXiv:2402.01613): BERT with rotary positions and a gated MLP, without biases in its layers."""

from collections.abc import Mapping
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import Overlaid, check_fixed, positive
from nestvec.export.families.rotary_encoder import (
    TRANSFORMERS_NAMES,
    RotaryEncoder,
    RotaryEncoderConfig,
    TensorNames,
    read_sizes,
)

# Fields of the authors' code, and the one value of each that is supported.
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
# The authors' names of fields by transformers' names.
AUTHORS_FIELDS: Final[Mapping[str, str]] = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
    "rope_theta": "rotary_emb_base",
}
AUTHORS_NAMES: Final = TensorNames(
    embedding_norm="emb_ln",
    layer="encoder.layers.{}",
    output="attn.out_proj",
    mlp_gate="mlp.fc12",
    mlp_up="mlp.fc11",
    mlp_down="mlp.fc2",
    attention_norm="norm1",
    mlp_norm="norm2",
    qkv="attn.Wqkv",
)


def read(config: Mapping[str, Any]) -> RotaryEncoderConfig:
    """Take the fields that the graph depends on out of a config.json, by either set of names.

    Raises:
        FormatError: A field is missing, of the wrong type, or has a value that is not supported.
    """
    check_fixed(config, FIXED)
    if config.get("rotary_scaling_factor") is not None:
        raise FormatError("config.json: 'rotary_scaling_factor' is not supported")
    own: dict[str, Any] = {"hidden_act": "silu"}
    if "n_embd" in config:
        own |= {name: config.get(theirs) for name, theirs in AUTHORS_FIELDS.items()}
    try:
        return read_sizes(
            Overlaid(own, config),
            default_theta=1000.0,
            type_vocab_size=positive(config, "type_vocab_size", 2),
        )
    except FormatError as error:
        message = error.message
        for name, theirs in AUTHORS_FIELDS.items() if "n_embd" in config else ():
            message = message.replace(f"'{name}'", f"'{theirs}'")
        raise FormatError(message) from error


NOMIC: Final = RotaryEncoder("nomic_bert.", read, (TRANSFORMERS_NAMES, AUTHORS_NAMES))
