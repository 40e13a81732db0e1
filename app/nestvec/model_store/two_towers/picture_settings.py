"""What preprocessor_config.json says of pictures: read or refused, never guessed.

Source: `CLIPImageProcessor` and `SiglipImageProcessor` on Pillow, of transformers 4.57.6 and 5.24.0.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from nestvec.engine.pictures.prefix import PrefixTower
from nestvec.engine.pictures.preprocessing import PictureTower
from nestvec.engine.pictures.tower import VisionTower
from nestvec.errors import FormatError
from nestvec.export.config.config_fields import with_defaults
from nestvec.export.two_towers.config import (
    TWO_TOWER_TYPES,
    TowerSizes,
    read_text_sizes,
    read_vision_sizes,
)
from nestvec.export.two_towers.picture_graph import PixelScale, export_picture_graph
from nestvec.model_store.sources.file_names import PREPROCESSOR_FILE, PROCESSOR_FILE
from nestvec.system.json_files import read_json

# Classes that do the same, by the family whose defaults they have.
CLASSES: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("CLIPImageProcessor", "CLIPFeatureExtractor"),
            *("CLIPImageProcessorFast", "CLIPImageProcessorPil"),
        ),
        "clip",
    ),
    **dict.fromkeys(
        ("SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil"), "siglip"
    ),
}
CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
HALVES: Final = (0.5, 0.5, 0.5)
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "clip": {
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
        "crop_size": 224,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    },
    "siglip": {
        "size": {"height": 224, "width": 224},
        "do_center_crop": False,
        "image_mean": HALVES,
        "image_std": HALVES,
    },
}
COMMON: Final[Mapping[str, Any]] = {
    "do_resize": True,
    "resample": 3,  # bicubic
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}
RESAMPLES: Final = range(6)  # Pillow's filters
CHANNELS: Final = 3
MAX_SIDE: Final = 4096
MAX_NUMBER: Final = 1e4
# A picture smaller than the numbers that stand for it would be known by too few of them.
MIN_TOKENS: Final = 4


class PictureSizes(Protocol):
    """What the sizes of any tower of pictures say of the pixels that it takes."""

    @property
    def image_size(self) -> int:
        """Width and height of a picture in pixels."""

    @property
    def tokens(self) -> int:
        """Number of tokens of a picture."""


@dataclass(frozen=True, slots=True)
class PictureSettings:
    """How a model takes pictures.

    Attributes:
        tower: What is made of a picture before the graph.
        scale: What the graph makes of its pixels first of all.
        source: Folder of its weights, where they lie apart from those of texts; None where they do not.
        files: Its files of weights there.
    """

    tower: VisionTower | PrefixTower
    scale: PixelScale
    source: Path | None = None
    files: tuple[Path, ...] = ()

    def export(
        self,
        folder: Path,
        config: Mapping[str, Any],
        path: Path,
        on_tensor: Callable[[int], None] | None = None,
    ) -> None:
        """Write the graph of pictures.

        Args:
            folder: The folder of the model of texts.
            config: Its config.json.
            path: Where the graph goes; its weights go beside it.
            on_tensor: Called with 1 for each tensor that was read; None for nobody to tell.

        Raises:
            FormatError: Configuration and weights do not fit each other.
            OSError: The disk is full or read-only.
        """
        export_picture_graph(folder, config, self.scale, path, on_tensor)

    def summary(self) -> dict[str, Any]:
        """Return what of it decides vectors, for the space's fingerprint."""
        scale = self.scale
        return {
            **self.tower.summary(),
            "factor": scale.factor,
            "mean": scale.mean,
            "std": scale.std,
        }


def read_picture_settings(folder: Path, config: Mapping[str, Any]) -> PictureSettings | None:
    """Read how a model takes pictures of one size; None where it has no tower for them, or its folder does not say how.

    Args:
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: A field is of the wrong type, or asks for what is not done here; names file and field.
    """
    family = str(config.get("model_type"))
    if family not in TWO_TOWER_TYPES:
        return None
    processor = read_processor(folder, family)
    if processor is None:
        return None
    sizes = read_vision_sizes(config)
    cost = work_of(sizes) / work_of(read_text_sizes(config))
    return PictureSettings(processor.tower(sizes, cost), processor.scale())


@dataclass(frozen=True, slots=True)
class Processor:
    """What a folder's files say of an image processor of transformers'.

    Attributes:
        path: The file, for messages.
        values: Its fields, with the defaults of its class.
    """

    path: Path
    values: Mapping[str, Any]

    def tower(self, sizes: PictureSizes, token_cost: float) -> PictureTower:
        """Return how pictures are resized and cropped, which must give what a tower takes.

        Raises:
            FormatError: It does not; names the field.
        """
        return _tower(self.path, self.values, sizes, token_cost)

    def scale(self) -> PixelScale:
        """Return how bytes are scaled.

        Raises:
            FormatError: A field is of the wrong type; names it.
        """
        return read_scale(self.path, self.values)


def read_processor(folder: Path, family: str) -> Processor | None:
    """Read what a folder says of its image processor; None where it says nothing.

    Args:
        folder: The folder.
        family: Whose class it is where the folder does not say: a key of `DEFAULTS`.

    Raises:
        FormatError: It is of another class, or asks for what is not done here; names file and field.
    """
    path, fields = processor_fields(folder)
    if fields is None:
        return None
    named = fields.get("image_processor_type") or fields.get("feature_extractor_type")
    check_class(path, named, CLASSES)
    family = family if named is None else CLASSES[named]
    values = with_defaults(fields, {**COMMON, **DEFAULTS[family]})
    values["number_is_shorter_side"] = family == "clip"
    if values.get("do_pad"):
        raise FormatError(f"{path}: do_pad: pictures are not padded here")
    if not flag(path, values, "do_resize"):
        raise FormatError(f"{path}: do_resize: pictures of other sizes could not be read")
    return Processor(path, values)


def processor_fields(folder: Path) -> tuple[Path, Mapping[str, Any] | None]:
    """Return the file of an image processor's settings, and its fields; None for these where there are none.

    Version 5 of transformers writes them into the file of the whole processor.

    Raises:
        FormatError: The file cannot be read, or holds something else.
    """
    path = folder / PREPROCESSOR_FILE
    if path.is_file():
        return path, read_json(path)
    path = folder / PROCESSOR_FILE
    fields = read_json(path).get("image_processor") if path.is_file() else None
    if fields is not None and not isinstance(fields, dict):
        raise FormatError(f"{path}: image_processor must be an object")
    return path, fields


def check_class(path: Path, named: object, classes: Collection[str]) -> None:
    """Refuse an image processor of another class than some; None, where a file names none, is fine.

    Raises:
        FormatError: It is none of them.
    """
    if named is not None and (not isinstance(named, str) or named not in classes):
        raise FormatError(
            f"{path}: image_processor_type: {str(named)[:40]!r} is none of {', '.join(classes)}"
        )


def _tower(
    path: Path, values: Mapping[str, Any], sizes: PictureSizes, token_cost: float
) -> PictureTower:
    """Read how pictures are resized and cropped, which must give what the tower takes."""
    is_square, side = _resized(path, values["size"], values["number_is_shorter_side"])
    crops = flag(path, values, "do_center_crop")
    given = square_side(path, "crop_size", values.get("crop_size", 224)) if crops else side
    if not is_square and not crops:
        raise FormatError(f"{path}: do_center_crop: pictures would keep their own shapes")
    if given != sizes.image_size:
        field = "crop_size" if crops else "size"
        raise FormatError(
            f"{path}: {field}: pictures would have {given} pixels a side, and config.json says {sizes.image_size}"
        )
    resample = read_resample(path, values)
    if sizes.tokens < MIN_TOKENS:
        raise FormatError(f"config.json: 'patch_size' leaves fewer than {MIN_TOKENS} patches")
    return PictureTower(
        size=sizes.image_size,
        tokens=sizes.tokens,
        is_square=is_square,
        resized_side=side,
        resample=resample,
        token_cost=token_cost,
    )


def read_resample(path: Path, values: Mapping[str, Any]) -> int:
    """Read the number of the filter that resizes."""
    resample = values["resample"]
    if not isinstance(resample, int) or isinstance(resample, bool) or resample not in RESAMPLES:
        raise FormatError(f"{path}: resample must be one of Pillow's filters, 0 to 5")
    return resample


def work_of(sizes: TowerSizes) -> float:
    """Return what a token costs in a tower, up to a factor: the products of its layers."""
    size = sizes.hidden_size
    return sizes.num_hidden_layers * (4.0 * size * size + 2.0 * size * sizes.intermediate_size)


def _resized(
    path: Path,
    size: object,
    number_is_shorter_side: bool,  # noqa: FBT001 - a field of the class
) -> tuple[bool, int]:
    """Return whether pictures become squares, and the side that they are resized to."""
    if isinstance(size, dict) and set(size) == {"shortest_edge"}:
        return False, _positive(path, "size", size["shortest_edge"])
    if isinstance(size, int) and number_is_shorter_side:
        return False, _positive(path, "size", size)
    return True, square_side(path, "size", size)


def square_side(path: Path, name: str, size: object) -> int:
    """Return the side of a square, given as a number or as height and width.

    Raises:
        FormatError: It is no square, or no size; names the field.
    """
    if isinstance(size, dict) and set(size) == {"height", "width"}:
        height = _positive(path, name, size["height"])
        if height != size["width"]:
            raise FormatError(f"{path}: {name}: only squares are supported")
        return height
    return _positive(path, name, size)


def _positive(path: Path, name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_SIDE:
        raise FormatError(f"{path}: {name} must be 1 to {MAX_SIDE} pixels")
    return value


def read_scale(path: Path, values: Mapping[str, Any]) -> PixelScale:
    """Read how bytes are scaled."""
    factor = values["rescale_factor"] if flag(path, values, "do_rescale") else 1
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor <= 1:
        raise FormatError(f"{path}: rescale_factor must be a number up to 1")
    if not flag(path, values, "do_normalize"):
        return PixelScale(float(factor))
    mean, std = (_colours(path, name, values[name]) for name in ("image_mean", "image_std"))
    if min(std) <= 0:
        raise FormatError(f"{path}: image_std must be above zero")
    return PixelScale(float(factor), mean, std)


def pixel_scale(path: Path, mean: object, std: object) -> PixelScale:
    """Read how bytes become what a model was trained on, by fields that are called `mean` and `std`.

    Raises:
        FormatError: They are no numbers for each colour.
    """
    means, deviations = _colours(path, "mean", mean), _colours(path, "std", std)
    if min(deviations) <= 0:
        raise FormatError(f"{path}: std must be above zero")
    return PixelScale(1 / 255, means, deviations)


def _colours(path: Path, name: str, numbers: object) -> tuple[float, float, float]:
    """Read a number for each colour."""
    if isinstance(numbers, int | float):
        numbers = [numbers] * CHANNELS
    if (
        not isinstance(numbers, list | tuple)
        or len(numbers) != CHANNELS
        or not all(type(n) in (int, float) and abs(n) <= MAX_NUMBER for n in numbers)
    ):
        raise FormatError(f"{path}: {name} must be a number for each of three colours")
    red, green, blue = map(float, numbers)
    return red, green, blue


def flag(path: Path, values: Mapping[str, Any], name: str) -> bool:
    """Read a field that is true or false."""
    value = values[name]
    if not isinstance(value, bool):
        raise FormatError(f"{path}: {name} must be true or false")
    return value
