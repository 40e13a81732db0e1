"""What a folder says of two towers, whichever family it is of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nestvec.export.two_towers.config import NAFLEX_TYPE
from nestvec.export.two_towers.jina_clip import JINA_CLIP
from nestvec.model_store.two_towers.head import TowerHead, check_chain, read_clip_head
from nestvec.model_store.two_towers.jina import read_jina_head, read_jina_pictures
from nestvec.model_store.two_towers.naflex_settings import read_naflex_settings
from nestvec.model_store.two_towers.picture_settings import PictureSettings, read_picture_settings


def read_tower_head(
    folder: Path, config: Mapping[str, Any], hidden_size: int, modules: Sequence[str]
) -> TowerHead | None:
    """Return the head of a model of two towers; None for any other model.

    Args:
        folder: The folder of its encoder.
        config: Its config.json.
        hidden_size: Width of its encoder's states.
        modules: The kinds of the modules of its chain.

    Raises:
        FormatError: The module chain has more than the model and a norm; or a field is of the wrong type, or has a
            value that is not supported.
    """
    if config.get("model_type") != JINA_CLIP:
        return read_clip_head(folder, config, hidden_size, modules)
    check_chain(folder, modules)
    return read_jina_head(folder, config, hidden_size)


def read_pictures(folder: Path, config: Mapping[str, Any]) -> PictureSettings | None:
    """Read how a model takes pictures; None where it has no tower for them, or its folder does not say how.

    Args:
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: A field is of the wrong type, or asks for what is not done here; names file and field.
    """
    if config.get("model_type") == JINA_CLIP:
        return read_jina_pictures(folder, config)
    if config.get("model_type") == NAFLEX_TYPE:
        return read_naflex_settings(folder, config)
    return read_picture_settings(folder, config)
