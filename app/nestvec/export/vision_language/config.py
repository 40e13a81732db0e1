"""What the graphs of Qwen3-VL are built from, out of the nested fields of a config.json.

Source: Qwen3-VL (arXiv:2511.21631); names and defaults as in transformers' configuration_qwen3_vl.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import (
    check_fixed,
    part,
    positive,
    positive_number,
    with_defaults,
)

VISION_LANGUAGE_TYPES: Final = frozenset({"qwen3_vl"})
# What the classes take where a file does not say. The base of the decoder's positions has no default here: transformers
# 4 and 5 have different ones.
TEXT_DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6,
}
VISION_DEFAULTS: Final[Mapping[str, Any]] = {
    "depth": 27,
    "hidden_size": 1152,
    "hidden_act": "gelu_pytorch_tanh",
    "intermediate_size": 4304,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 3584,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": (8, 16, 24),
}
# What is read of either part beside these.
TEXT_FIELDS: Final = ("rope_theta", "rope_scaling", "rope_parameters", "attention_bias")
VISION_FIELDS: Final = ("rope_parameters",)
MROPE_SECTION: Final = (24, 20, 20)
VISION_THETA: Final = 10_000.0
AXES: Final = 3  # time, row, column


@dataclass(frozen=True, slots=True)
class VisionTowerSizes:
    """What the graph of pictures depends on; fields are named as in `vision_config`.

    Attributes:
        position_side: The table of positions has so many rows and columns; 0 for a tower without one.
        deepstack_layers: Layers whose states are merged too, and added behind the decoder's first layers, in order.
        theta: Base of the rotation by rows and columns.
    """

    depth: int
    hidden_size: int
    hidden_act: str
    intermediate_size: int
    num_heads: int
    patch_size: int
    spatial_merge_size: int
    temporal_patch_size: int
    out_hidden_size: int
    position_side: int
    deepstack_layers: tuple[int, ...]
    theta: float

    @property
    def row_width(self) -> int:
        """Width of what a token of a picture gives: its embedding, then what is added behind the first layers."""
        return self.out_hidden_size * (1 + len(self.deepstack_layers))


def part_fields() -> Mapping[str, tuple[str, ...]]:
    """Return the fields that are read of either part of a config.json, by the part's name."""
    return {
        "text_config": (*TEXT_DEFAULTS, *TEXT_FIELDS),
        "vision_config": (*VISION_DEFAULTS, *VISION_FIELDS),
    }


def text_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the decoder's fields of a whole config.json, with the defaults of its class.

    Raises:
        FormatError: They are no object, or one has a value that is not supported.
    """
    fields = with_defaults(part(config, "text_config"), TEXT_DEFAULTS)
    check_fixed(fields, {"attention_bias": False})
    rope = _rope(fields)
    if "rope_theta" not in fields and "rope_theta" not in rope:
        raise FormatError("config.json: 'text_config' lacks 'rope_theta'")
    check_fixed(rope, {"mrope_interleaved": True, "partial_rotary_factor": 1})
    if not isinstance(rope.get("rope_type", rope.get("type", "default")), str):
        raise FormatError("config.json: 'rope_type' must be a string")
    return fields


def axis_of_pairs(fields: Mapping[str, Any], head_dim: int) -> tuple[int, ...]:
    """Return by which axis (0 time, 1 row, 2 column) each pair of a head is rotated, [d / 2].

    Pairs of the three are interleaved, up to three times the section of rows, and of columns; the others are of time.

    Args:
        fields: The decoder's fields, from `text_fields`.
        head_dim: d.

    Raises:
        FormatError: `mrope_section` does not say it of all pairs.
    """
    section = _rope(fields).get("mrope_section", MROPE_SECTION)
    if (
        not isinstance(section, list | tuple)
        or len(section) != AXES
        or not all(type(pairs) is int and pairs >= 0 for pairs in section)
        or sum(section) != head_dim // 2
        or max(AXES * section[1] - 2, AXES * section[2] - 1) > head_dim // 2
    ):
        raise FormatError(
            "config.json: 'mrope_section' must be the number of pairs of a head that turn with time, rows and columns"
        )
    axes = [0] * (head_dim // 2)
    for axis in (1, 2):
        for pair in range(axis, AXES * section[axis], AXES):
            axes[pair] = axis
    return tuple(axes)


def read_vision_tower(config: Mapping[str, Any]) -> VisionTowerSizes:
    """Read the sizes of the tower of pictures from a whole config.json.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    fields = with_defaults(part(config, "vision_config"), VISION_DEFAULTS)
    text = text_fields(config)
    check_fixed(fields, {"in_channels": 3})
    size, heads = positive(fields, "hidden_size"), positive(fields, "num_heads")
    # Pairs turn with rows or with columns, and there are as many of either.
    if size % (4 * heads):
        raise FormatError(
            "config.json: 'num_heads' of 'vision_config' must make heads of a multiple of 4"
        )
    table = positive(fields, "num_position_embeddings")
    side = math.isqrt(table)
    if side * side != table:
        raise FormatError("config.json: 'num_position_embeddings' must be a square")
    sizes = VisionTowerSizes(
        depth=positive(fields, "depth"),
        hidden_size=size,
        hidden_act=str(fields["hidden_act"]),
        intermediate_size=positive(fields, "intermediate_size"),
        num_heads=heads,
        patch_size=positive(fields, "patch_size"),
        spatial_merge_size=positive(fields, "spatial_merge_size"),
        temporal_patch_size=positive(fields, "temporal_patch_size"),
        out_hidden_size=positive(fields, "out_hidden_size"),
        position_side=side,
        deepstack_layers=_deepstack(fields, positive(text, "num_hidden_layers")),
        theta=vision_theta(fields),
    )
    if sizes.out_hidden_size != (width := positive(text, "hidden_size")):
        raise FormatError(
            f"config.json: 'out_hidden_size' is {sizes.out_hidden_size}, and the decoder's 'hidden_size' {width}"
        )
    return sizes


def _deepstack(fields: Mapping[str, Any], decoder_layers: int) -> tuple[int, ...]:
    layers = fields["deepstack_visual_indexes"]
    depth = positive(fields, "depth")
    if (
        not isinstance(layers, list | tuple)
        or not all(type(layer) is int and 0 <= layer < depth for layer in layers)
        or list(layers) != sorted(set(layers))
        or len(layers) > decoder_layers
    ):
        raise FormatError(
            "config.json: 'deepstack_visual_indexes' must be layers of the tower, rising, no more than the decoder has"
        )
    return tuple(layers)


def vision_theta(fields: Mapping[str, Any]) -> float:
    """Read the base of the rotation by rows and columns from the tower's fields.

    Raises:
        FormatError: It is no positive number, or there is another rotation.
    """
    rope = _rope(fields)
    check_fixed(rope, {"rope_type": "axial"})
    return positive_number(rope, "rope_theta", VISION_THETA)


def _rope(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise FormatError("config.json: 'rope_parameters' must be an object")
    return rope
