"""What preprocessor_config.json says of pictures that a decoder reads among tokens: read or refused, never guessed.

Source: `Qwen2VLImageProcessor` on Pillow, of transformers 4.57.6 and 5.24.0, whose bounds are those of 5.24.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.pictures.prefix import PicturePrefix
from nestvec.errors import FormatError
from nestvec.export.config.config_fields import with_defaults
from nestvec.export.families.pre_norm import DecoderConfig
from nestvec.export.vision_language.config import VISION_LANGUAGE_TYPES, VisionTowerSizes
from nestvec.export.vision_language.decoder import QWEN3_VL, PictureDecoder
from nestvec.export.vision_language.vision_graph import (
    QWEN3_TOWER,
    TowerNames,
    export_vision_graph,
)
from nestvec.model_store.two_towers.picture_settings import (
    CLIP_MEAN,
    CLIP_STD,
    COMMON,
    PictureSettings,
    check_class,
    flag,
    processor_fields,
    read_resample,
    read_scale,
)
from nestvec.model_store.vision_language.chat import picture_token_ids

CLASSES: Final = (
    *("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil"),
)
SHORTEST, LONGEST = "shortest_edge", "longest_edge"
# Of the class: the fewest and the most pixels, which older files call otherwise.
DEFAULTS: Final[Mapping[str, Any]] = {
    **COMMON,
    "size": {SHORTEST: 56 * 56, LONGEST: 28 * 28 * 1280},
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
# A picture of fewer tokens would be known by too few numbers; where the most pixels are of eight, none has fewer.
MIN_TOKENS: Final = 4
MIN_MOST_TOKENS: Final = 8
MAX_PIXELS: Final = 2**26


@dataclass(frozen=True, slots=True)
class PrefixSettings(PictureSettings):
    """How one of Qwen's models takes pictures among tokens.

    Attributes:
        sizes: Sizes of its tower.
        names: What the tensors of its tower are called.
    """

    tower: PicturePrefix
    sizes: VisionTowerSizes = field(kw_only=True)
    names: TowerNames = field(kw_only=True)

    @override
    def export(
        self,
        folder: Path,
        config: Mapping[str, Any],
        path: Path,
        on_tensor: Callable[[int], None] | None = None,
    ) -> None:
        """Write the graph of pictures, as `PictureSettings.export` does."""
        del config
        export_vision_graph(folder, self.sizes, self.names, self.scale, path, on_tensor)


def read_prefix_settings(folder: Path, config: Mapping[str, Any]) -> PrefixSettings | None:
    """Read how Qwen3-VL takes pictures; None for other models, and where its folder does not say how.

    Args:
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: A field is of the wrong type, or asks for what is not done here; names file and field.
    """
    if str(config.get("model_type")) not in VISION_LANGUAGE_TYPES:
        return None

    def around() -> tuple[tuple[int, ...], tuple[int, ...]]:
        start_id, end_id = picture_token_ids(folder)
        return (start_id,), (end_id,)

    return read_qwen_pictures(folder, config, QWEN3_VL, QWEN3_TOWER, around)


def read_qwen_pictures(
    folder: Path,
    config: Mapping[str, Any],
    decoder: PictureDecoder,
    names: TowerNames,
    around: Callable[[], tuple[tuple[int, ...], tuple[int, ...]]],
) -> PrefixSettings | None:
    """Read how one of Qwen's decoders takes pictures; None where its folder does not say how.

    Args:
        folder: The encoder's folder.
        config: Its config.json.
        decoder: Reads it.
        names: What the tensors of its tower are called.
        around: Returns the ids of the tokens before and behind those of a picture.

    Raises:
        FormatError: A field is of the wrong type, or asks for what is not done here; names file and field.
    """
    path, fields = processor_fields(folder)
    if fields is None:
        return None
    check_class(path, fields.get("image_processor_type"), CLASSES)
    values = with_defaults(fields, DEFAULTS)
    sizes = decoder.read_tower(config)
    if not flag(path, values, "do_resize"):
        raise FormatError(f"{path}: do_resize: pictures of other sizes could not be read")
    for name, own in (
        ("patch_size", sizes.patch_size),
        ("merge_size", sizes.spatial_merge_size),
        ("temporal_patch_size", sizes.temporal_patch_size),
    ):
        if values[name] != own:
            raise FormatError(f"{path}: {name} is {values[name]!r}, and config.json says {own}")
    fewest, most = _bounds(path, values, sizes.patch_size * sizes.spatial_merge_size)
    before_ids, behind_ids = around()
    tower = PicturePrefix(
        patch_size=sizes.patch_size,
        merge_size=sizes.spatial_merge_size,
        min_pixels=fewest,
        max_pixels=most,
        resample=read_resample(path, values),
        before_ids=before_ids,
        behind_ids=behind_ids,
        **_costs(sizes, decoder.read(config)),
    )
    return PrefixSettings(tower, read_scale(path, values), sizes=sizes, names=names)


def _bounds(path: Path, values: Mapping[str, Any], factor: int) -> tuple[int, int]:
    """Read the fewest and the most pixels that a picture is resized to."""
    # The first files of Qwen2-VL have other names in `size`, which say nothing beside those outside of it.
    size = values["size"] if isinstance(values["size"], dict) else {}
    given = {
        "min_pixels": values.get("min_pixels", size.get(SHORTEST)),
        "max_pixels": values.get("max_pixels", size.get(LONGEST)),
    }
    if None in given.values():
        raise FormatError(f"{path}: size must have {SHORTEST} and {LONGEST}")
    for name, value in given.items():
        if type(value) is not int or not 0 < value <= MAX_PIXELS:
            raise FormatError(f"{path}: {name} (or size) must be 1 to {MAX_PIXELS} pixels")
    fewest, most = given.values()
    token = factor**2
    # Of 4,095 and 4,096 pixels, as files say either, come the same pictures: sides are whole tokens.
    if -(-fewest // token) < MIN_TOKENS or most < max(fewest, MIN_MOST_TOKENS * token):
        raise FormatError(
            f"{path}: min_pixels (or size) must be of {MIN_TOKENS} tokens of {token} pixels at least, and max_pixels "
            f"of {MIN_MOST_TOKENS} and no fewer"
        )
    return fewest, most


def _costs(sizes: VisionTowerSizes, text: DecoderConfig) -> dict[str, float]:
    """Return what pictures cost in tokens of a text, as `PicturePrefix` has it: by the products of both parts."""
    heads = 2 * (text.num_attention_heads + text.num_key_value_heads) * text.head_dim
    of_decoder = text.num_hidden_layers * text.hidden_size * (heads + 3 * text.intermediate_size)
    size, merged = sizes.hidden_size, sizes.spatial_merge_size**2
    of_patch = sizes.depth * (4 * size * size + 2 * size * sizes.intermediate_size)
    wide = merged * size
    mergers = (1 + len(sizes.deepstack_layers)) * wide * (wide + sizes.out_hidden_size)
    return {
        "token_cost": 1 + (merged * of_patch + mergers) / of_decoder,
        "pair_cost": 2 * sizes.depth * size / of_decoder,
    }
