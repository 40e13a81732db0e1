"""What the graphs of ColPali are built from: a PaliGemma, as its config.json nests its fields, in `vlm_config`.

Source: PaliGemma (arXiv:2407.07726); names and defaults as in transformers' configuration_colpali.py,
configuration_paligemma.py and the configurations of Gemma and SigLIP.
"""

from collections.abc import Mapping
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import part, positive, with_defaults
from nestvec.export.two_towers.config import VISION_DEFAULTS, VisionSizes, siglip_vision_sizes

COLPALI: Final = "colpali"
PART: Final = "vlm_config"
PART_TYPES: Final = ("paligemma",)
TEXT_TYPES: Final = ("gemma",)
VISION_TYPES: Final = ("siglip_vision_model",)
EMBEDDING_DIM: Final = 128
# What Gemma's class takes where a file does not say.
TEXT_DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 256000,
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
}
# What is read of either part beside these.
TEXT_FIELDS: Final = (
    *("rope_theta", "rope_scaling", "rope_parameters", "attention_bias", "hidden_activation"),
)
VISION_FIELDS: Final = ("num_channels",)
# What decides on Gemma's mask elsewhere: here all tokens see all, whatever they say.
MASK_FIELDS: Final = ("use_bidirectional_attention", "is_causal")
IMAGE_TOKEN: Final = ("image_token_index", "image_token_id")
LEGACY_ACT: Final = "gelu"


def part_fields() -> Mapping[str, tuple[str, ...]]:
    """Return the fields that are read of each part of a config.json, by the part's path."""
    return {
        PART: ("text_config", "vision_config", "projection_dim", *IMAGE_TOKEN),
        f"{PART}.text_config": (*TEXT_DEFAULTS, *TEXT_FIELDS, *MASK_FIELDS),
        # A tower with a head has states as one without.
        f"{PART}.vision_config": (
            *VISION_DEFAULTS["siglip"],
            *VISION_FIELDS,
            *("vision_use_head", "projection_dim"),
        ),
    }


def text_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the decoder's fields of a whole config.json, with the defaults of its class.

    Raises:
        FormatError: They are no object, of another class, or the activation is one that transformers 4 and 5 read
            differently.
    """
    fields = {**TEXT_DEFAULTS, **_part(_vlm_fields(config), "text_config", TEXT_TYPES)}
    if fields["hidden_act"] == LEGACY_ACT:
        raise FormatError(
            f"config.json: 'hidden_act' of '{PART}.text_config' is '{LEGACY_ACT}', which transformers 5 takes for "
            "'gelu_pytorch_tanh' and 4 does not: write what is meant (Gemma was trained with the latter)"
        )
    return {**fields, **dict.fromkeys(MASK_FIELDS)}


def image_token_id(config: Mapping[str, Any]) -> object:
    """Return what a whole config.json says of the token that stands for a patch; None where it says nothing."""
    fields = _vlm_fields(config)
    return next((fields[name] for name in IMAGE_TOKEN if name in fields), None)


def read_vision_sizes(config: Mapping[str, Any]) -> VisionSizes:
    """Read the sizes of the tower of pictures from a whole config.json.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    fields, width = _vlm_fields(config), text_fields(config)["hidden_size"]
    if fields.get("projection_dim", width) != width:
        raise FormatError(
            f"config.json: 'projection_dim' is {fields['projection_dim']!r}, and the decoder's 'hidden_size' {width!r}"
        )
    return siglip_vision_sizes(_part(fields, "vision_config", VISION_TYPES))


def embedding_dim(config: Mapping[str, Any]) -> int:
    """Read the number of dimensions of a token's vector.

    Raises:
        FormatError: It is no positive integer.
    """
    return positive(config, "embedding_dim", EMBEDDING_DIM)


def _vlm_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return _part(config, PART, PART_TYPES)


def _part(fields: Mapping[str, Any], name: str, model_types: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a part that are there, and not null.

    Raises:
        FormatError: They are no object, or of another class.
    """
    values = part(fields, name)
    if values.get("model_type") not in (None, *model_types):
        raise FormatError(
            f"config.json: 'model_type' of '{name}' is {str(values['model_type'])[:40]!r}; only "
            f"{', '.join(model_types)} is supported"
        )
    return with_defaults(values, {})
