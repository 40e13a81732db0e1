"""jina-clip against plain references: from files and texts to vectors of one space."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.pictures.decoding import decode_picture
from nestvec.engine.pictures.preprocessing import PictureTower, PixelArray
from nestvec.engine.types import ItemOptions
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.probes import compute_vectors
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.package import load_package
from nestvec.model_store.two_towers.jina import read_jina_pictures
from PIL import Image

from tests.engine.pictures.forms import FORMS
from tests.model_store.test_package import options
from tests.model_store.two_towers.jina_vision import (
    CONFIGS,
    IMAGE,
    picture_reference,
    scaled,
    text_reference,
    write_jina,
)
from tests.model_store.two_towers.test_towers import BOUNDS, backend_of, items_of
from tests.support.tiny import write_json

TOLERANCE = 1e-5
TEXTS = ("", "alpha", "red and green", "two blue three four")


@pytest.mark.parametrize("kind", CONFIGS)
def test_vectors_are_those_of_the_reference(tmp_path: Path, kind: str) -> None:
    """Vectors of files and of texts, through heads and adapters, are those of plain numpy."""
    config = CONFIGS[kind]
    folder = write_jina(tmp_path / "model", kind)
    package = load_package(str(folder), options(tmp_path), OnnxBackend)
    backend, tower = backend_of(package), package.spec.pictures
    assert isinstance(tower, PictureTower)
    items = items_of(tower)
    of_pictures = [ItemOptions(are_pictures=True)] * len(items)
    rows = raw_vectors(backend, items, package.pooler, of_pictures)
    vectors = finish(rows, dimensions=None, normalize=True)
    pixels = np.stack([item.pixels for item in items if item.pixels is not None])
    assert np.abs(vectors - picture_reference(config, scaled(pixels))).max() < TOLERANCE
    alone = raw_vectors(backend, items[:1], package.pooler, of_pictures[:1])
    assert np.abs(alone - rows[:1]).max() < TOLERANCE
    tokenizer = package.open_tokenizer(40)
    texts = compute_vectors(backend, tokenizer, package.pooler, TEXTS)
    ids = [tokenizer.library.encode(text).ids for text in TEXTS]
    assert np.abs(texts - text_reference(config, ids)).max() < TOLERANCE
    assert package.spec.hidden_size == texts.shape[1] == vectors.shape[1]


def test_what_the_folder_says_of_sizes_and_prompts(tmp_path: Path) -> None:
    """Matryoshka's sizes, the tasks' instructions and lengths come from its files."""
    folder = read_model_folder(write_jina(tmp_path, "v2"))
    assert folder.head.trained_dimensions == (8, 16, 32)
    assert folder.prompts["query"] == folder.prompts["retrieval.query"] == "query : "
    assert (folder.head.pooling, folder.default_prompt) == ("mean", None)
    assert read_model_folder(write_jina(tmp_path / "v1", "v1")).prompts == {}


def torch_pixels(picture: Image.Image, mode: str, fill: int) -> PixelArray:
    """Return what the authors' transforms make of a picture, step by step as torchvision's documentation has them."""
    width, height = picture.size
    if mode == "squash":
        return np.asarray(picture.resize((IMAGE, IMAGE), Image.Resampling.BICUBIC))
    if mode == "shortest":
        longer = int(IMAGE * max(width, height) / min(width, height))
        size = (IMAGE, longer) if width <= height else (longer, IMAGE)
        resized = picture.resize(size, Image.Resampling.BICUBIC)
        left, top = round((size[0] - IMAGE) / 2.0), round((size[1] - IMAGE) / 2.0)
        return np.asarray(resized.crop((left, top, left + IMAGE, top + IMAGE)))
    ratio = max(width / IMAGE, height / IMAGE)
    size = round(width / ratio), round(height / ratio)
    framed = Image.new("RGB", (IMAGE, IMAGE), (fill, fill, fill))
    place = (IMAGE - size[0]) // 2, (IMAGE - size[1]) // 2
    framed.paste(picture.resize(size, Image.Resampling.BICUBIC), place)
    return np.asarray(framed)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_pixels_are_those_of_the_authors_transforms(tmp_path: Path, mode: str) -> None:
    """Each mode resizes, crops and borders as they do, of odd sizes too, where a half is rounded to the even number."""
    folder = write_jina(tmp_path, "v2", resize_mode=mode, fill_color=7)
    settings = read_jina_pictures(folder, CONFIGS["v2"])
    assert settings is not None
    pictures = [decode_picture(form(), BOUNDS) for form in FORMS.values()]
    random = np.random.default_rng(3)
    sizes = [(34, 35), (34, 37), (37, 34), (99, 40), (40, 97), (34, 34), (3, 60)]
    pictures += [
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
        for width, height in sizes
    ]
    for picture in pictures:
        pixels = settings.tower.pixels(picture)
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, torch_pixels(picture, mode, fill=7))


def test_modes_and_colours_are_part_of_the_space(tmp_path: Path) -> None:
    """Pixels that are made otherwise make another space."""
    changes: list[dict[str, Any]] = [
        {},
        {"resize_mode": "longest"},
        {"resize_mode": "longest", "fill_color": 9},
        {"resize_mode": "squash"},
        {"interpolation": "bilinear"},
        {"mean": 0.5},
    ]
    summaries = []
    for number, changed in enumerate(changes):
        settings = read_jina_pictures(
            write_jina(tmp_path / str(number), "v2", **changed), CONFIGS["v2"]
        )
        assert settings is not None
        summaries.append(json.dumps(settings.summary()))
    assert len(set(summaries)) == len(summaries)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 30),
        ("size", [34, 30]),
        ("resize_mode", "crop"),
        ("resize_mode", ["shortest"]),
        ("interpolation", "lanczos"),
        ("fill_color", 256),
        ("fill_color", "black"),
        ("std", [1, 0, 1]),
        ("mean", "grey"),
        ("image_processor_type", "CLIPImageProcessor"),
    ],
)
def test_what_is_not_done_to_pictures_is_refused(tmp_path: Path, field: str, value: object) -> None:
    """A field that would change pixels is honoured or refused by its name, never ignored."""
    write_jina(tmp_path, "v2", **{field: value})
    with pytest.raises(FormatError, match=rf"preprocessor_config.json: {field}"):
        read_jina_pictures(tmp_path, CONFIGS["v2"])


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        ("", "truncate_dim", 16),
        ("", "matryoshka_dimensions", [64]),
        ("text_config", "hf_model_name_or_path", "org/other"),
        ("text_config", "default_instruction_task", "retrieval.query"),
        ("text_config", "default_lora_task", "separation"),
        ("text_config", "pooler_type", "last_pooler"),
        ("text_config", "proj_type", "conv"),
        ("text_config", "embed_dim", 24),
        ("text_config", "hf_model_config_kwargs", {"use_qk_norm": True}),
        ("text_config", "hf_model_config_kwargs", {"position_embedding_type": "absolute"}),
        ("text_config", "hf_model_config_kwargs", {"task_instructions": ["a"]}),
        ("vision_config", "head_width", 64),
        ("vision_config", "proj_type", "mlp"),
        ("vision_config", "intp_freq", False),
        ("vision_config", "patch_size", 35),
        ("vision_config", "ls_init_value", "some"),
        ("vision_config", "mlp_ratio", -1),
        ("vision_config", "subln", "yes"),
    ],
)
def test_fields_that_make_another_model_are_refused(
    tmp_path: Path, place: str, field: str, value: object
) -> None:
    """Nothing of config.json is passed over that would change vectors: the field is named."""
    write_jina(tmp_path, "v2")
    config: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())
    (config[place] if place else config)[field] = value
    write_json(tmp_path / "config.json", config)
    named = next(iter(value)) if isinstance(value, dict) else field
    with pytest.raises(FormatError, match=rf"config.json: .*{named}"):
        _ = read_model_folder(tmp_path).head.trained_dimensions


def test_a_bias_that_nothing_says_is_refused(tmp_path: Path) -> None:
    """A checkpoint with a bias that config.json denies would give other vectors."""
    write_jina(tmp_path / "model", "projected")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["text_config"]["proj_bias"] = False
    write_json(tmp_path / "model/config.json", config)
    with pytest.raises(FormatError, match=r"text_model.proj.bias"):
        load_package(str(tmp_path / "model"), options(tmp_path), OnnxBackend)
