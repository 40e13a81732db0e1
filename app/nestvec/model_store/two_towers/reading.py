"""What a folder says of the head of two towers, whichever family it is of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nestvec.export.two_towers.jina_clip import JINA_CLIP
from nestvec.model_store.two_towers.head import TowerHead, check_chain, read_clip_head
from nestvec.model_store.two_towers.jina import read_jina_head


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
