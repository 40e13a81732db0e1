"""The families of models that compare a text's tokens with a picture's patches, and how each is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nestvec.export.architectures import architecture_of
from nestvec.export.vision_language import colpali_config, modernvbert_config, qwen2_config
from nestvec.model_store.heads.base import Head
from nestvec.model_store.two_towers.picture_settings import PictureSettings
from nestvec.model_store.vision_language.colmodernvbert import read_colmodernvbert_head
from nestvec.model_store.vision_language.colpali import (
    read_colpali_head,
    read_colpali_pictures,
)
from nestvec.model_store.vision_language.colqwen2 import (
    read_colqwen2_head,
    read_colqwen2_pictures,
)
from nestvec.model_store.vision_language.tile_settings import read_tile_settings


@dataclass(frozen=True, slots=True)
class PatchFamily:
    """How the folders of a family are read.

    Attributes:
        read_pictures: Reads of the encoder's folder and its config.json how pictures are taken; None where the folder
            does not say.
        read_head: Reads of folder, config.json, the states' width and the kinds of the module chain what stands behind
            the encoder, and how queries are tokenized.
        part_fields: Returns which fields are read of each part of config.json, by the part's path.
    """

    read_pictures: Callable[[Path, Mapping[str, Any]], PictureSettings | None]
    read_head: Callable[[Path, Mapping[str, Any], int, Sequence[str]], Head]
    part_fields: Callable[[], Mapping[str, tuple[str, ...]]]


# By the family's name, as the exporter knows it.
PATCH_FAMILIES: Final[Mapping[str, PatchFamily]] = {
    modernvbert_config.COLMODERNVBERT: PatchFamily(
        read_tile_settings, read_colmodernvbert_head, modernvbert_config.part_fields
    ),
    colpali_config.COLPALI: PatchFamily(
        read_colpali_pictures, read_colpali_head, colpali_config.part_fields
    ),
    qwen2_config.COLQWEN2: PatchFamily(
        read_colqwen2_pictures, read_colqwen2_head, qwen2_config.part_fields
    ),
}


def read_patch_head(
    folder: Path, config: Mapping[str, Any], hidden_size: int, modules: Sequence[str]
) -> Head | None:
    """Return the head of a model that compares patches; None for any other model.

    Args:
        folder: The folder of its encoder.
        config: Its config.json.
        hidden_size: Width of its encoder's states.
        modules: The kinds of the modules of its chain.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    family = PATCH_FAMILIES.get(architecture_of(config))
    return None if family is None else family.read_head(folder, config, hidden_size, modules)
