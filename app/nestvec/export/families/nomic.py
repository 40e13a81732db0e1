"""NomicBERT (arXiv:2402.01613): BERT with rotary positions and a gated MLP, without biases in its layers.

Its second model (nomic-embed-text-v2-moe, arXiv:2502.07972) has biases, a plain MLP, and in every second layer experts.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import Overlaid, boolean, check_fixed, positive
from nestvec.export.families.rotary_encoder import (
    TRANSFORMERS_NAMES,
    ExpertsConfig,
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
    "use_rms_norm": False,
    "causal": False,
    "num_shared_experts": 0,
    "expert_choice_router": False,
    "moe_normalize_expert_weights": False,
}
# The activation of a plain MLP, and that of a gated one, by the authors' name.
PLAIN_ACTIVATION: Final = "gelu"
GATED_ACTIVATION: Final = "swiglu"
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
AUTHORS_PLAIN_NAMES: Final = replace(AUTHORS_NAMES, mlp_gate="", mlp_up="mlp.fc1")


def read(config: Mapping[str, Any]) -> RotaryEncoderConfig:
    """Take the fields that the graph depends on out of a config.json, by either set of names.

    Raises:
        FormatError: A field is missing, of the wrong type, or has a value that is not supported.
    """
    check_fixed(config, FIXED)
    if config.get("rotary_scaling_factor") is not None:
        raise FormatError("config.json: 'rotary_scaling_factor' is not supported")
    act = config.get("activation_function")
    if act not in (None, PLAIN_ACTIVATION, GATED_ACTIVATION):
        raise FormatError(
            f"config.json: 'activation_function' must be '{GATED_ACTIVATION}' or '{PLAIN_ACTIVATION}'"
        )
    is_gated = act != PLAIN_ACTIVATION
    own: dict[str, Any] = {"hidden_act": "silu" if is_gated else act}
    if "n_embd" in config:
        own |= {name: config.get(theirs) for name, theirs in AUTHORS_FIELDS.items()}
    try:
        return read_sizes(
            Overlaid(own, config),
            default_theta=1000.0,
            type_vocab_size=positive(config, "type_vocab_size", 2),
            is_gated=is_gated,
            has_projection_bias=boolean(config, "qkv_proj_bias", default=False),
            has_mlp_up_bias=boolean(config, "mlp_fc1_bias", default=False),
            has_mlp_down_bias=boolean(config, "mlp_fc2_bias", default=False),
            experts=_read_experts(config, is_gated=is_gated),
        )
    except FormatError as error:
        message = error.message
        for name, theirs in AUTHORS_FIELDS.items() if "n_embd" in config else ():
            message = message.replace(f"'{name}'", f"'{theirs}'")
        raise FormatError(message) from error


def _read_experts(config: Mapping[str, Any], *, is_gated: bool) -> ExpertsConfig | None:
    """Take out of a config.json how the experts are; None where there are none.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    if not config.get("num_experts") or not config.get("moe_every_n_layers"):
        return None
    if is_gated:
        raise FormatError(f"config.json: experts need 'activation_function' '{PLAIN_ACTIVATION}'")
    experts = ExpertsConfig(
        count=positive(config, "num_experts"),
        chosen=positive(config, "moe_top_k", 1),
        every=positive(config, "moe_every_n_layers"),
    )
    if experts.chosen > experts.count:
        raise FormatError("config.json: 'moe_top_k' is more than 'num_experts'")
    return experts


NOMIC: Final = RotaryEncoder(
    "nomic_bert.", read, (TRANSFORMERS_NAMES, AUTHORS_NAMES, AUTHORS_PLAIN_NAMES)
)
