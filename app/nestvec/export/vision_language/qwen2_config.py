"""What the graphs of Qwen2-VL are built from, as ColQwen2's config.json nests its fields, in `vlm_config`.

Source: Qwen2-VL (arXiv:2409.12191); names and defaults as in transformers' configuration_qwen2_vl.py and
configuration_colqwen2.py.
"""

from collections.abc import Mapping
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import check_fixed, positive
from nestvec.export.vision_language.config import AXES, VisionTowerSizes, vision_theta

COLQWEN2: Final = "colqwen2"
PART: Final = "vlm_config"
PART_TYPE: Final = "qwen2_vl"
EMBEDDING_DIM: Final = 128
# What the classes take where a file does not say.
TEXT_DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "use_sliding_window": False,
    "rope_theta": 1_000_000.0,
}
VISION_DEFAULTS: Final[Mapping[str, Any]] = {
    "depth": 32,
    "embed_dim": 1280,
    "hidden_size": 3584,
    "hidden_act": "quick_gelu",
    "mlp_ratio": 4,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
# What is read of either part beside these, or says nothing where sliding windows are off.
TEXT_FIELDS: Final = (
    *("rope_scaling", "rope_parameters", "head_dim", "layer_types"),
    *("sliding_window", "max_window_layers"),
)
VISION_FIELDS: Final = ("rope_parameters",)
MROPE_SECTION: Final = (16, 24, 24)
# The name that older files have for the plain frequencies.
PLAIN_ROPE: Final = {"mrope": "default"}


def part_fields() -> Mapping[str, tuple[str, ...]]:
    """Return the fields that are read of each part of a config.json, by the part's path."""
    text = (*TEXT_DEFAULTS, *TEXT_FIELDS)
    return {
        PART: ("text_config", "vision_config", *text),
        f"{PART}.text_config": text,
        f"{PART}.vision_config": (*VISION_DEFAULTS, *VISION_FIELDS),
    }


def vlm_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of the model that ColQwen2 is made of.

    Raises:
        FormatError: They are no object, or of another model than Qwen2-VL.
    """
    fields = _object(config.get(PART), PART)
    if (kind := fields.get("model_type")) != PART_TYPE:
        raise FormatError(
            f"config.json: '{PART}.model_type' is {str(kind)[:40]!r}, not '{PART_TYPE}'"
        )
    return fields


def text_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the decoder's fields of a whole config.json, with the defaults of its class.

    Raises:
        FormatError: They are no object, or one has a value that is not supported.
    """
    whole = vlm_fields(config)
    # As on the Hub, where the decoder's fields stand among the model's.
    nested = whole.get("text_config")
    given = whole if nested is None else _object(nested, f"{PART}.text_config")
    fields = {**TEXT_DEFAULTS, **_known(given, (*TEXT_DEFAULTS, *TEXT_FIELDS))}
    check_fixed(fields, {"use_sliding_window": False})
    heads, size = positive(fields, "num_attention_heads"), positive(fields, "hidden_size")
    if size % heads:
        raise FormatError("config.json: 'num_attention_heads' must divide 'hidden_size'")
    check_fixed(fields, {"head_dim": size // heads})
    rope = _object(
        fields.get("rope_scaling") or fields.get("rope_parameters") or {}, "rope_scaling"
    )
    kind = rope.get("type", rope.get("rope_type", "default"))
    if not isinstance(kind, str):
        raise FormatError("config.json: 'rope_type' must be a string")
    check_fixed(rope, {"mrope_interleaved": False, "partial_rotary_factor": 1})
    fields["rope_parameters"] = {
        "rope_theta": fields["rope_theta"],
        **rope,
        "rope_type": PLAIN_ROPE.get(kind, kind),
    }
    return {**fields, "rope_scaling": None, "sliding_window": None, "layer_types": None}


def axis_of_pairs(fields: Mapping[str, Any], head_dim: int) -> tuple[int, ...]:
    """Return by which axis (0 time, 1 row, 2 column) each pair of a head is rotated, [d / 2]: one behind the other.

    Args:
        fields: The decoder's fields, from `text_fields`.
        head_dim: d.

    Raises:
        FormatError: `mrope_section` does not say it of all pairs.
    """
    section = fields["rope_parameters"].get("mrope_section", MROPE_SECTION)
    if (
        not isinstance(section, list | tuple)
        or len(section) != AXES
        or not all(type(pairs) is int and 0 <= pairs <= head_dim for pairs in section)
        or sum(section) != head_dim // 2
    ):
        raise FormatError(
            "config.json: 'mrope_section' must be the number of pairs of a head that turn with time, rows and columns"
        )
    return tuple(axis for axis, pairs in enumerate(section) for _ in range(pairs))


def read_vision_tower(config: Mapping[str, Any]) -> VisionTowerSizes:
    """Read the sizes of the tower of pictures from a whole config.json.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    given = _object(vlm_fields(config).get("vision_config", {}), f"{PART}.vision_config")
    fields = {**VISION_DEFAULTS, **_known(given, (*VISION_DEFAULTS, *VISION_FIELDS))}
    check_fixed(fields, {"in_channels": 3})
    width, heads = positive(fields, "embed_dim"), positive(fields, "num_heads")
    # Pairs turn with rows or with columns, and there are as many of either.
    if width % (4 * heads):
        raise FormatError(
            "config.json: 'num_heads' of 'vision_config' must make heads of a multiple of 4"
        )
    ratio = fields["mlp_ratio"]
    if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 0 < ratio <= width:
        raise FormatError("config.json: 'mlp_ratio' must be a positive number")
    out, text_width = positive(fields, "hidden_size"), positive(text_fields(config), "hidden_size")
    if out != text_width:
        raise FormatError(
            f"config.json: 'hidden_size' of 'vision_config' is {out}, and the decoder's {text_width}"
        )
    return VisionTowerSizes(
        depth=positive(fields, "depth"),
        hidden_size=width,
        hidden_act=str(fields["hidden_act"]),
        intermediate_size=positive({"mlp_ratio": int(width * ratio)}, "mlp_ratio"),
        num_heads=heads,
        patch_size=positive(fields, "patch_size"),
        spatial_merge_size=positive(fields, "spatial_merge_size"),
        temporal_patch_size=positive(fields, "temporal_patch_size"),
        out_hidden_size=out,
        position_side=0,
        deepstack_layers=(),
        theta=vision_theta(fields),
    )


def embedding_dim(config: Mapping[str, Any]) -> int:
    """Read the number of dimensions of a token's vector.

    Raises:
        FormatError: It is no positive integer.
    """
    return positive(config, "embedding_dim", EMBEDDING_DIM)


def _known(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return those fields that are there, and not null."""
    return {name: given[name] for name in names if given.get(name) is not None}


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"config.json: '{name}' must be an object")
    return value
