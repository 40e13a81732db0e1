"""What folders of decoders that read pictures say as a target: config.json, the image processor, the chat template."""

import json
import math
import random
from pathlib import Path

from nestvec.export.vision_language.decoder import QWEN3_VL
from nestvec.model_store.vision_language.chat import read_chat
from nestvec.model_store.vision_language.picture_settings import read_prefix_settings
from nestvec.system.json_files import read_json

from tests.end_to_end.fuzz.mutate import as_json, mutated_bytes, mutated_json
from tests.model_store.vision_language.models import (
    CHAT_TEMPLATE,
    CONFIG,
    PROCESSOR,
    write_tokenizer,
)


def prepare(folder: Path) -> None:
    """Write the tokenizer."""
    write_tokenizer(folder / "tokenizer.json")


def write(folder: Path, _: None, chooser: random.Random) -> None:
    """Write the files, of which one is mutated."""
    contents = {
        "config.json": CONFIG,
        "preprocessor_config.json": {**PROCESSOR, "min_pixels": 256, "max_pixels": 4096},
        "tokenizer_config.json": {
            "chat_template": [{"name": "default", "template": CHAT_TEMPLATE}]
        },
    }
    chosen = chooser.choice(sorted(contents))
    for name, content in contents.items():
        whole = json.dumps(content).encode()
        if name == chosen:
            is_structure = chooser.random() < 0.7
            mutated = as_json(mutated_json(content, chooser)) if is_structure else None
            whole = mutated_bytes(whole, chooser) if mutated is None else mutated
        (folder / name).write_bytes(whole)


def read(folder: Path) -> object:
    """Read them as loading does; what is read of pictures holds for pictures of any shape."""
    config = read_json(folder / "config.json")
    sizes = QWEN3_VL.dimensions(config)
    settings = read_prefix_settings(folder, config)
    if settings is not None:
        tower = settings.tower
        for width, height in ((1, 1), (200, 1), (1, 200), (4000, 4000), (317, 1999)):
            wide, high = tower.resized_size(width, height)
            assert wide % tower.factor == high % tower.factor == 0
            # A line of tokens may be more than the bound, where that is of few tokens.
            most = tower.max_pixels / tower.factor**2
            assert 4 <= tower.tokens_of(width, height) <= 2 * (most + math.sqrt(200 * most))
    return sizes, settings, read_chat(folder, config, "")
