"""What a folder of ColModernVBERT says of pictures, which are read in tiles: read or refused, never guessed.

Source: `Idefics3ImageProcessorPil` and `ColModernVBertProcessor` of transformers 5.24.0.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.pictures.tiles import TILE, WHOLE, TiledPrefix, TileShape
from nestvec.errors import FormatError
from nestvec.export.config.config_fields import with_defaults
from nestvec.export.vision_language.modernvbert import export_tile_graph
from nestvec.export.vision_language.modernvbert_config import (
    ModernVBertSizes,
    read_sizes,
)
from nestvec.model_store.sources.file_names import PROCESSOR_FILE
from nestvec.model_store.two_towers.picture_settings import (
    COMMON,
    HALVES,
    MAX_SIDE,
    MIN_TOKENS,
    PictureSettings,
    check_class,
    flag,
    processor_fields,
    read_resample,
    read_scale,
    work_of,
)
from nestvec.model_store.vision_language.prompts import PromptTokens, processor_prompt
from nestvec.system.json_files import read_json

CLASSES: Final = (
    *("Idefics3ImageProcessor", "Idefics3ImageProcessorFast", "Idefics3ImageProcessorPil"),
)
LONGEST: Final = "longest_edge"
DEFAULTS: Final[Mapping[str, Any]] = {
    **COMMON,
    "resample": 1,  # Lanczos
    "size": {LONGEST: 4 * 364},
    "max_image_size": {LONGEST: 364},
    "do_image_splitting": True,
    "do_convert_rgb": True,
    "image_mean": HALVES,
    "image_std": HALVES,
}
# Tokens that the processor writes: around pictures, of a picture, of the whole of it, at the end of what is said.
AROUND: Final = "<fake_token_around_image>"
IMAGE: Final = "<image>"
WHOLE_IMAGE: Final = "<global-img>"
END: Final = "<end_of_utterance>"
WRITTEN: Final = (IMAGE, AROUND, END)
PROMPT: Final = f"<|begin_of_text|>User:{IMAGE}Describe the image.{END}\nAssistant:"
IMAGE_TOKENS: Final = 64  # of a tile, where a processor does not say
MAX_TILES: Final = 145  # twelve rows of twelve, and the whole


@dataclass(frozen=True, slots=True)
class TileSettings(PictureSettings):
    """How a model takes pictures in tiles among the tokens of a prompt."""

    tower: TiledPrefix

    @override
    def export(
        self,
        folder: Path,
        config: Mapping[str, Any],
        path: Path,
        on_tensor: Callable[[int], None] | None = None,
    ) -> None:
        """Write the graph of tiles, as `PictureSettings.export` does."""
        export_tile_graph(folder, config, self.scale, path, on_tensor)


def read_tile_settings(folder: Path, config: Mapping[str, Any]) -> TileSettings | None:
    """Read how ColModernVBERT takes pictures; None where its folder does not say how.

    Args:
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: A field is of the wrong type, or asks for what is not done here; names file and field.
    """
    path, fields = processor_fields(folder)
    if fields is None:
        return None
    check_class(path, fields.get("image_processor_type"), CLASSES)
    values, sizes = with_defaults(fields, DEFAULTS), read_sizes(config)
    if not flag(path, values, "do_resize"):
        raise FormatError(f"{path}: do_resize: pictures would have any number of tiles")
    tile, longest = (_edge(path, name, values[name]) for name in ("max_image_size", "size"))
    if tile != sizes.vision.image_size:
        raise FormatError(
            f"{path}: max_image_size: tiles would have {tile} pixels a side, and config.json says "
            f"{sizes.vision.image_size}"
        )
    if sizes.tile_tokens < MIN_TOKENS:
        raise FormatError(f"config.json: 'patch_size' leaves fewer than {MIN_TOKENS} tokens a tile")
    splits = flag(path, values, "do_image_splitting")
    sides = -(-longest // tile) if splits else 1
    if longest % 2 or sides**2 + 1 > MAX_TILES:
        raise FormatError(
            f"{path}: size: {LONGEST} must be even, and at most {MAX_TILES - 1} tiles"
        )
    frames = _frames(folder, sizes, sides)
    tower = TiledPrefix(
        tile_size=tile,
        patch_size=sizes.vision.patch_size,
        merge_size=sizes.shuffle_factor,
        longest_side=longest,
        splits=splits,
        is_on_white=flag(path, values, "do_convert_rgb"),
        resample=read_resample(path, values),
        frames=frames,
        **_costs(sizes),
    )
    return TileSettings(tower, read_scale(path, values))


def _edge(path: Path, name: str, size: object) -> int:
    """Read the longer side that a size says."""
    side = size.get(LONGEST) if isinstance(size, dict) and set(size) == {LONGEST} else None
    if type(side) is not int or not 0 < side <= MAX_SIDE:
        raise FormatError(f"{path}: {name} must be {LONGEST} alone, 1 to {MAX_SIDE} pixels")
    return side


def _frames(folder: Path, sizes: ModernVBertSizes, sides: int) -> dict[TileShape, tuple[int, ...]]:
    """Return the ids of the whole input for each shape that a picture may have, `TILE` once for each tile."""
    path = folder / PROCESSOR_FILE
    fields = read_json(path) if path.is_file() else {}
    if fields.get("image_seq_len", IMAGE_TOKENS) != sizes.tile_tokens:
        raise FormatError(
            f"{path}: image_seq_len is {fields.get('image_seq_len', IMAGE_TOKENS)!r}, and tiles have "
            f"{sizes.tile_tokens} tokens by config.json"
        )
    prompt = said_prompt(folder, "visual_prompt_prefix", PROMPT)
    if prompt.count(IMAGE) != 1:
        raise FormatError(f"{path}: visual_prompt_prefix must have {IMAGE} once")
    tokens = PromptTokens.read(folder)
    image_id, *_ = (tokens.id_of(each) for each in WRITTEN)
    if image_id != sizes.image_token_id:
        raise FormatError(
            f"config.json: 'image_token_id' is {sizes.image_token_id}, and {tokens.path} has {IMAGE} as {image_id}"
        )
    frames = {}
    for shape in _shapes(sides):
        ids = tokens.ids(prompt.replace(IMAGE, _written(shape)), adds_special_tokens=True)
        frames[shape] = tuple(TILE if each == image_id else each for each in ids)
    return frames


def said_prompt(folder: Path, name: str, default: str) -> str:
    """Read a prompt of a folder's processor; an empty one stands for the class's own.

    Raises:
        FormatError: The field holds something else than a text of some length.
    """
    path = folder / PROCESSOR_FILE
    is_said = path.is_file() and read_json(path).get(name) != ""
    return processor_prompt(folder, name, default) if is_said else default


def _shapes(sides: int) -> Iterator[TileShape]:
    """Iterate over the shapes of pictures whose longer side is so many tiles."""
    yield WHOLE
    if sides > 1:
        yield from ((sides, columns) for columns in range(1, sides + 1))
        yield from ((rows, sides) for rows in range(1, sides))


def _written(shape: TileShape) -> str:
    """Write a picture as the processor does, with one token for those of each tile."""
    rows, columns = shape
    text = ""
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            text += f"{AROUND}<row_{row}_col_{column}>{IMAGE}"
        text += "\n"
    text += "\n" if rows else ""
    return f"{text}{AROUND}{WHOLE_IMAGE}{IMAGE}{AROUND}"


def _costs(sizes: ModernVBertSizes) -> dict[str, float]:
    """Return what tiles cost in tokens of a text, as `TiledPrefix` has it: by the products of both parts."""
    text, vision = sizes.text, sizes.vision
    layer = text.hidden_size * (4 * text.hidden_size + 3 * text.intermediate_size)
    of_encoder = float(len(text.is_local) * layer)
    merged = sizes.shuffle_factor**2
    connector = merged * vision.hidden_size * text.hidden_size
    return {
        "token_cost": 1 + (merged * work_of(vision) + connector) / of_encoder,
        "pair_cost": 2 * vision.num_hidden_layers * vision.hidden_size / of_encoder,
    }
