"""What folders say of pictures as a target: the image processor's file, and config.json where its fields decide."""

import json
import random
from pathlib import Path

from nestvec.export.two_towers.nomic_vision import is_nomic_vision, read_nomic_vision
from nestvec.model_store.folder.picture_reading import read_pictures
from nestvec.model_store.two_towers.picture_settings import read_processor
from nestvec.model_store.two_towers.reading import read_tower_head
from nestvec.system.json_files import read_json

from tests.end_to_end.fuzz.mutate import half_and_half
from tests.model_store.two_towers import jina_vision
from tests.model_store.two_towers.naflex import models as naflex
from tests.model_store.two_towers.nomic import nomic_vision
from tests.model_store.two_towers.towers import CONFIGS, PROCESSORS

ALL_CONFIGS = {
    **CONFIGS,
    "nomic": nomic_vision.PUBLISHED,
    "jina": jina_vision.CONFIGS["projected"],
    "naflex": naflex.CONFIG,
}
ALL_PROCESSORS = {
    **PROCESSORS,
    "nomic": nomic_vision.PROCESSOR,
    "jina": jina_vision.PROCESSOR,
    "naflex": naflex.PROCESSOR,
}
# Whose config.json no other target mutates, or only half of it.
WIDTH = 32
OWN_CONFIGS = ("nomic", "jina")


def write_preprocessor(folder: Path, _: None, chooser: random.Random) -> None:
    """Write both files of a kind, one of them mutated."""
    kind = chooser.choice(sorted(ALL_PROCESSORS))
    content = {
        "preprocessor_config.json": json.dumps(ALL_PROCESSORS[kind]).encode(),
        "config.json": json.dumps(ALL_CONFIGS[kind]).encode(),
    }
    name = "preprocessor_config.json"
    if kind in OWN_CONFIGS and chooser.random() < 0.5:
        name = "config.json"
    content[name] = half_and_half(content[name], chooser)
    for file, data in content.items():
        (folder / file).write_bytes(data)


def read_preprocessor(folder: Path) -> object:
    """Read them as loading a model does."""
    config = read_json(folder / "config.json")
    if not is_nomic_vision(config):
        head = read_tower_head(folder, config, WIDTH, ["Transformer"])
        if head is None:
            return None
        return head.trained_dimensions, head.dimensions, read_pictures(folder, config)
    sizes = read_nomic_vision(config)
    processor = read_processor(folder, "clip")
    return None if processor is None else (processor.tower(sizes, 1.0), processor.scale())
