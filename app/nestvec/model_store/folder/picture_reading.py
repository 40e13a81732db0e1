"""What a folder says of pictures, whichever family it is of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nestvec.export.two_towers.config import NAFLEX_TYPE
from nestvec.export.two_towers.jina_clip import JINA_CLIP
from nestvec.export.vision_language.config import VISION_LANGUAGE_TYPES
from nestvec.model_store.two_towers.jina import read_jina_pictures
from nestvec.model_store.two_towers.naflex_settings import read_naflex_settings
from nestvec.model_store.two_towers.picture_settings import PictureSettings, read_picture_settings
from nestvec.model_store.vision_language.patch_models import PATCH_FAMILIES
from nestvec.model_store.vision_language.picture_settings import read_prefix_settings


def read_pictures(folder: Path, config: Mapping[str, Any]) -> PictureSettings | None:
    """Read how a model takes pictures; None where it takes texts only, or its folder does not say how.

    Args:
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: A field is of the wrong type, or asks for what is not done here; names file and field.
    """
    family = str(config.get("model_type"))
    if family == JINA_CLIP:
        return read_jina_pictures(folder, config)
    if family == NAFLEX_TYPE:
        return read_naflex_settings(folder, config)
    if family in PATCH_FAMILIES:
        return PATCH_FAMILIES[family].read_pictures(folder, config)
    if family in VISION_LANGUAGE_TYPES:
        return read_prefix_settings(folder, config)
    return read_picture_settings(folder, config)
