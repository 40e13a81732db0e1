"""What folders of models that read pictures among tokens say as a target: config.json, processors, chat template."""

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nestvec.engine.pictures.prefix import PicturePrefix
from nestvec.engine.pictures.tiles import TILE
from nestvec.engine.text.tokenizer_changes import NO_CHANGES
from nestvec.export.vision_language.colpali import COLPALI_DECODER
from nestvec.export.vision_language.decoder import COLQWEN2, QWEN3_VL
from nestvec.export.vision_language.modernvbert import COL_MODERNVBERT
from nestvec.model_store.vision_language.chat import read_chat
from nestvec.model_store.vision_language.colmodernvbert import read_colmodernvbert_head
from nestvec.model_store.vision_language.colpali import (
    read_colpali_head,
    read_colpali_pictures,
    with_bos,
)
from nestvec.model_store.vision_language.colqwen2 import (
    read_colqwen2_head,
    read_colqwen2_pictures,
)
from nestvec.model_store.vision_language.picture_settings import read_prefix_settings
from nestvec.model_store.vision_language.tile_settings import read_tile_settings
from nestvec.system.json_files import read_json

from tests.end_to_end.fuzz.mutate import half_and_half
from tests.model_store.vision_language.colmodernvbert import models as tiles
from tests.model_store.vision_language.colpali.models import CONFIG as COLPALI_CONFIG
from tests.model_store.vision_language.colpali.models import PROCESSOR as COLPALI_PROCESSOR
from tests.model_store.vision_language.colpali.models import (
    write_tokenizer as write_gemma_tokenizer,
)
from tests.model_store.vision_language.colqwen2.models import CONFIG as COLQWEN2_CONFIG
from tests.model_store.vision_language.models import (
    CHAT_TEMPLATE,
    CONFIG,
    END,
    PROCESSOR,
    write_tokenizer,
)

PICTURES = {**PROCESSOR, "min_pixels": 256, "max_pixels": 4096}
CHOSEN = "kind.txt"
SHAPES = ((1, 1), (200, 1), (1, 200), (4000, 4000), (317, 1999))
# By kind what writes its tokenizer, where it is not Qwen's.
TOKENIZERS = {"colmodernvbert": tiles.write_tokenizer, "colpali": write_gemma_tokenizer}


def prepare(folder: Path) -> None:
    """Make a folder for each kind of model, with a tokenizer."""
    for kind in KINDS:
        (folder / kind).mkdir()
        TOKENIZERS.get(kind, write_tokenizer)(folder / kind / "tokenizer.json")


def write(folder: Path, _: None, chooser: random.Random) -> None:
    """Write the files of one kind, of which one is mutated."""
    kind = chooser.choice(sorted(KINDS))
    (folder / CHOSEN).write_text(kind)
    contents = KINDS[kind][0]
    chosen = chooser.choice(sorted(contents))
    for name, content in contents.items():
        whole = json.dumps(content).encode()
        mutated = half_and_half(whole, chooser) if name == chosen else whole
        (folder / kind / name).write_bytes(mutated)


def read(folder: Path) -> object:
    """Read them as loading does; what is read of pictures holds for pictures of any shape."""
    kind = (folder / CHOSEN).read_text()
    return KINDS[kind][1](folder / kind)


def _read_chat(folder: Path) -> object:
    config = read_json(folder / "config.json")
    sizes = QWEN3_VL.dimensions(config)
    settings = read_prefix_settings(folder, config)
    if settings is not None:
        _check(settings.tower)
    return sizes, settings, read_chat(folder, config, "")


def _read_colqwen2(folder: Path) -> object:
    config = read_json(folder / "config.json")
    sizes = COLQWEN2.dimensions(config)
    settings = read_colqwen2_pictures(folder, config)
    if settings is not None:
        _check(settings.tower)
    return sizes, settings, read_colqwen2_head(folder, config, sizes.hidden_size, ())


def _read_colmodernvbert(folder: Path) -> object:
    config = read_json(folder / "config.json")
    sizes = COL_MODERNVBERT.dimensions(config)
    settings = read_tile_settings(folder, config)
    if settings is not None:
        tower = settings.tower
        for width, height in SHAPES:
            tokens = tower.tokens_of(width, height)
            assert tokens == tower.frames[tower.shape_of(width, height)].count(TILE) * (
                tower.tile_tokens
            )
    return sizes, settings, read_colmodernvbert_head(folder, config, sizes.hidden_size, ())


def _read_colpali(folder: Path) -> object:
    config = read_json(folder / "config.json")
    sizes = COLPALI_DECODER.dimensions(config)
    settings = read_colpali_pictures(folder, config)
    if settings is not None:
        tower = settings.tower
        assert tower.tokens_of(1, 1) == tower.side_patches**2 >= 4
        assert tower.extra_cost([(tower.side_patches, tower.side_patches, 1)]) >= 0
    head = read_colpali_head(folder, config, sizes.hidden_size, ())
    return sizes, settings, head, with_bos(NO_CHANGES, folder, config)


def _check(tower: PicturePrefix) -> None:
    for width, height in SHAPES:
        wide, high = tower.resized_size(width, height)
        assert wide % tower.factor == high % tower.factor == 0
        # A line of tokens may be more than the bound, where that is of few tokens.
        most = tower.max_pixels / tower.factor**2
        assert 4 <= tower.tokens_of(width, height) <= 2 * (most + math.sqrt(200 * most))


# By kind the files, and what reads them.
KINDS: Mapping[str, tuple[Mapping[str, Any], Callable[[Path], object]]] = {
    "chat": (
        {
            "config.json": CONFIG,
            "preprocessor_config.json": PICTURES,
            "tokenizer_config.json": {
                "chat_template": [{"name": "default", "template": CHAT_TEMPLATE}]
            },
        },
        _read_chat,
    ),
    "colmodernvbert": (
        {
            "config.json": tiles.CONFIG,
            "preprocessor_config.json": tiles.IMAGE_PROCESSOR,
            "processor_config.json": {
                **tiles.PROCESSOR,
                "query_prefix": "Query: ",
                "visual_prompt_prefix": "<image>Describe it.",
            },
        },
        _read_colmodernvbert,
    ),
    "colqwen2": (
        {
            "config.json": COLQWEN2_CONFIG,
            "processor_config.json": {
                "query_prefix": "Query: ",
                "visual_prompt_prefix": "<|image_pad|>Describe it.",
                "image_processor": PICTURES,
            },
            "tokenizer_config.json": {
                "pad_token": {"content": END},
                "image_token": "<|image_pad|>",
            },
        },
        _read_colqwen2,
    ),
    "colpali": (
        {
            "config.json": COLPALI_CONFIG,
            "processor_config.json": {
                "query_prefix": "Question: ",
                "visual_prompt_prefix": "Describe the image.",
                "image_processor": COLPALI_PROCESSOR,
            },
            "tokenizer_config.json": {"pad_token": {"content": "<pad>"}, "bos_token": "<bos>"},
        },
        _read_colpali,
    ),
}
