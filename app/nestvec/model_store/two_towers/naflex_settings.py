"""What preprocessor_config.json says of pictures in their own shapes: SigLIP 2 NaFlex.

Source: `Siglip2ImageProcessor` of transformers 4.57.6, and `Siglip2ImageProcessorPil` of 5.24.0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.pictures.naflex import MAX_PATCHES, MIN_PATCHES, NaFlexTower
from nestvec.errors import FormatError
from nestvec.export.config.config_fields import with_defaults
from nestvec.export.two_towers.config import read_naflex_sizes, read_text_sizes
from nestvec.export.two_towers.naflex_graph import export_naflex_graph
from nestvec.model_store.two_towers.picture_settings import (
    COMMON,
    HALVES,
    PictureSettings,
    check_class,
    flag,
    processor_fields,
    read_resample,
    read_scale,
    work_of,
)

NAFLEX_CLASSES: Final = (
    "Siglip2ImageProcessor",
    "Siglip2ImageProcessorFast",
    "Siglip2ImageProcessorPil",
)
NAFLEX_DEFAULTS: Final[Mapping[str, Any]] = {
    **COMMON,
    "resample": 2,  # bilinear
    "image_mean": HALVES,
    "image_std": HALVES,
    "patch_size": 16,
    "max_num_patches": 256,
}
# The smallest picture is made a hundred times as large at most: with larger patches it would be known by too few.
MAX_PATCH_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class NaFlexSettings(PictureSettings):
    """How a model takes pictures in their own shapes."""

    tower: NaFlexTower

    @override
    def export(
        self,
        folder: Path,
        config: Mapping[str, Any],
        path: Path,
        on_tensor: Callable[[int], None] | None = None,
    ) -> None:
        """Write the graph of pictures, as `PictureSettings.export` does."""
        export_naflex_graph(folder, config, self.scale, path, on_tensor)


def read_naflex_settings(folder: Path, config: Mapping[str, Any]) -> NaFlexSettings | None:
    """Read how SigLIP 2 NaFlex takes pictures; None where its folder does not say how.

    Args:
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: A field is of the wrong type, or asks for what is not done here; names file and field.
    """
    path, fields = processor_fields(folder)
    if fields is None:
        return None
    named = fields.get("image_processor_type") or fields.get("feature_extractor_type")
    check_class(path, named, NAFLEX_CLASSES)
    values = with_defaults(fields, NAFLEX_DEFAULTS)
    if not flag(path, values, "do_resize"):
        raise FormatError(f"{path}: do_resize: pictures would have any number of patches")
    sizes = read_naflex_sizes(config)
    side = _number(path, values, "patch_size", 1, MAX_PATCH_SIZE)
    if side != sizes.patch_size:
        raise FormatError(
            f"{path}: patch_size: patches would have {side} pixels a side, and config.json says {sizes.patch_size}"
        )
    tower = NaFlexTower(
        patch_size=side,
        max_patches=_number(path, values, "max_num_patches", MIN_PATCHES, MAX_PATCHES),
        resample=read_resample(path, values),
        token_cost=work_of(sizes) / work_of(read_text_sizes(config)),
    )
    return NaFlexSettings(tower, read_scale(path, values))


def _number(path: Path, values: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = values[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise FormatError(f"{path}: {name} must be {least} to {most}")
    return value
