"""What the two towers of CLIP and SigLIP are built from, out of the nested fields of a config.json.

Source: CLIP (arXiv:2103.00020), SigLIP (arXiv:2303.15343), SigLIP 2 (arXiv:2502.14786); names and defaults as in
transformers' configuration_clip.py, configuration_siglip.py and configuration_siglip2.py, whose files leave out what
has its default. `siglip2` is SigLIP 2 NaFlex; its checkpoints of one resolution are `siglip`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import (
    boolean,
    check_fixed,
    part,
    positive,
    positive_number,
    with_defaults,
)

_SIGLIP_LAYERS: Final[Mapping[str, Any]] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_SIGLIP_TEXT: Final[Mapping[str, Any]] = {
    **_SIGLIP_LAYERS,
    "vocab_size": 32000,
    "max_position_embeddings": 64,
}
# What each family's classes take where a file does not say.
TEXT_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "clip": {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    "siglip": _SIGLIP_TEXT,
    "siglip2": _SIGLIP_TEXT,
}
VISION_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "clip": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    "siglip": {**_SIGLIP_LAYERS, "image_size": 224, "patch_size": 16},
    "siglip2": {**_SIGLIP_LAYERS, "num_patches": 256, "patch_size": 16},
}
# What is read of a tower beside these.
TOWER_FIELDS: Final = ("num_channels", "vision_use_head", "projection_size", "projection_dim")
TWO_TOWER_TYPES: Final = frozenset(TEXT_DEFAULTS)
NAFLEX_TYPE: Final = "siglip2"
PROJECTION: Final = 512  # of CLIP, where a file does not say


@dataclass(frozen=True, slots=True)
class TowerSizes:
    """What the layers of either tower depend on.

    Attributes:
        family: A key of `TEXT_DEFAULTS`.
        projected_size: Width of the vectors that both towers give, D.
    """

    family: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float
    hidden_act: str
    projected_size: int


@dataclass(frozen=True, slots=True)
class TextSizes(TowerSizes):
    """What the tower of texts depends on beside that."""

    vocab_size: int
    max_positions: int


@dataclass(frozen=True, slots=True)
class VisionSizes(TowerSizes):
    """What the tower of pictures depends on beside that.

    Attributes:
        image_size: Width and height of a picture in pixels, S.
        patch_size: Width and height of a patch in pixels.
        has_class_token: Whether a token of its own stands before the patches.
    """

    image_size: int
    patch_size: int
    has_class_token: bool

    @property
    def side_patches(self) -> int:
        """Number of patches in a row, and of rows; pixels beyond a whole number of patches are left out."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Number of tokens of a picture."""
        return self.side_patches**2 + int(self.has_class_token)


@dataclass(frozen=True, slots=True)
class NaFlexSizes(TowerSizes):
    """What the tower of pictures of SigLIP 2 NaFlex depends on beside that.

    Attributes:
        grid_side: Rows, and columns, of the table of positions, which is resized to the patches of each picture.
        patch_size: Width and height of a patch in pixels.
    """

    grid_side: int
    patch_size: int


def read_text_sizes(config: Mapping[str, Any]) -> TextSizes:
    """Read the sizes of the tower of texts from a whole config.json.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    family = _family(config)
    fields = _nested(config, "text_config", TEXT_DEFAULTS[family])
    size = positive(fields, "hidden_size")
    if family == "clip":
        projected = positive(config, "projection_dim", PROJECTION)
    else:
        projected = positive(fields, "projection_size", size)
    return TextSizes(
        **_layers(fields),
        family=family,
        projected_size=projected,
        vocab_size=positive(fields, "vocab_size"),
        max_positions=positive(fields, "max_position_embeddings"),
    )


def read_vision_sizes(config: Mapping[str, Any]) -> VisionSizes:
    """Read the sizes of the tower of pictures from a whole config.json.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    family = _family(config)
    fields = _nested(config, "vision_config", VISION_DEFAULTS[family])
    check_fixed(fields, {"num_channels": 3})
    if family == "siglip" and not boolean(fields, "vision_use_head", default=True):
        raise FormatError("config.json: 'vision_use_head' must be true: pictures have no vector")
    is_clip = family == "clip"
    size = positive(fields, "hidden_size")
    sizes = VisionSizes(
        **_layers(fields),
        family=family,
        projected_size=positive(config, "projection_dim", PROJECTION) if is_clip else size,
        image_size=positive(fields, "image_size"),
        patch_size=positive(fields, "patch_size"),
        has_class_token=is_clip,
    )
    if sizes.patch_size > sizes.image_size:
        raise FormatError("config.json: 'patch_size' is more than 'image_size'")
    _check_width(sizes.projected_size, config)
    return sizes


def siglip_vision_sizes(fields: Mapping[str, Any]) -> VisionSizes:
    """Read the sizes of a SigLIP tower of pictures whose states are wanted, and no vectors, from a `vision_config`.

    Args:
        fields: The tower's fields, without defaults; whether it has a head says nothing.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    fields = with_defaults(fields, VISION_DEFAULTS["siglip"])
    check_fixed(fields, {"num_channels": 3})
    sizes = VisionSizes(
        **_layers(fields),
        family="siglip",
        projected_size=positive(fields, "hidden_size"),
        image_size=positive(fields, "image_size"),
        patch_size=positive(fields, "patch_size"),
        has_class_token=False,
    )
    if sizes.patch_size > sizes.image_size:
        raise FormatError("config.json: 'patch_size' is more than 'image_size'")
    return sizes


def read_naflex_sizes(config: Mapping[str, Any]) -> NaFlexSizes:
    """Read the sizes of the tower of pictures of SigLIP 2 NaFlex from a whole config.json.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    fields = _nested(config, "vision_config", VISION_DEFAULTS[NAFLEX_TYPE])
    check_fixed(fields, {"num_channels": 3})
    if not boolean(fields, "vision_use_head", default=True):
        raise FormatError("config.json: 'vision_use_head' must be true: pictures have no vector")
    size, patches = positive(fields, "hidden_size"), positive(fields, "num_patches")
    side = math.isqrt(patches)
    if side * side != patches:
        raise FormatError("config.json: 'num_patches' must be a square: positions are a grid")
    sizes = NaFlexSizes(
        **_layers(fields),
        family=NAFLEX_TYPE,
        projected_size=size,
        grid_side=side,
        patch_size=positive(fields, "patch_size"),
    )
    _check_width(size, config)
    return sizes


def _check_width(pictures: int, config: Mapping[str, Any]) -> None:
    """Refuse towers whose vectors have not the same width.

    Raises:
        FormatError: They have not.
    """
    if pictures != (texts := read_text_sizes(config).projected_size):
        raise FormatError(
            f"config.json: vectors of pictures have {pictures} dimensions, those of texts {texts}"
        )


def _family(config: Mapping[str, Any]) -> str:
    family = str(config.get("model_type"))
    if family not in TEXT_DEFAULTS:
        raise FormatError(f"config.json: model_type '{family}' is no model of two towers")
    return family


def _nested(config: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tower's fields with the defaults; `NAME_dict`, of older files, is taken before `NAME`, as it is there.

    Raises:
        FormatError: They are no object.
    """
    fields = dict(defaults)
    for key in (name, f"{name}_dict"):
        if config.get(key) is not None:
            fields = with_defaults(part(config, key), fields)
    return fields


def _layers(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Read what both towers have."""
    size, heads = positive(fields, "hidden_size"), positive(fields, "num_attention_heads")
    if size % heads:
        raise FormatError("config.json: heads must divide the hidden size")
    return {
        "hidden_size": size,
        "intermediate_size": positive(fields, "intermediate_size"),
        "num_hidden_layers": positive(fields, "num_hidden_layers"),
        "num_attention_heads": heads,
        "layer_norm_eps": positive_number(fields, "layer_norm_eps", 1e-5),
        "hidden_act": str(fields["hidden_act"]),
    }
