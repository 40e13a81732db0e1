"""nomic-embed-vision beside nomic-embed-text: two checkpoints, one model and one space."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.pictures.decoding import decode_picture
from nestvec.engine.pictures.preprocessing import PictureTower, content_ids
from nestvec.engine.types import FloatArray, Item, ItemOptions, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import FormatError, SourceError
from nestvec.export.two_towers.nomic_picture_graph import export_nomic_pictures
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.artefacts.picture_build import check_picture_probes
from nestvec.model_store.artefacts.probes import compute_vectors
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.heads.base import Head
from nestvec.model_store.package import Package, load_package
from nestvec.model_store.picture_pairs import with_pictures
from nestvec.model_store.sources.fetch import SourceOptions, check_source
from nestvec.model_store.two_towers.picture_settings import read_processor
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tests.engine.pictures.forms import FORMS
from tests.model_store.test_package import options
from tests.model_store.two_towers.nomic.nomic_vision import (
    CONFIGS,
    IMAGE,
    reference,
    scaled,
    some_pixels,
    write_vision,
)
from tests.model_store.two_towers.pairs import TEXTS, write_texts
from tests.model_store.two_towers.test_towers import BOUNDS, backend_of, tower_of
from tests.model_store.two_towers.towers import HERE
from tests.support.tiny import write_json, write_tiny_bert

Pixels = NDArray[np.uint8]
TOKENS = 17
TOLERANCE = 1e-5
CARD = """
name = "{name}"
[source]
kind = "folder"
name = "{folder}"
[overrides]
layer_norm_beside_pictures = true
"""


def pair(tmp_path: Path, model: str = "") -> Package:
    """Load a tiny model of texts with a tiny model of pictures beside it."""
    model = model or str(write_texts(tmp_path / "texts"))
    beside = replace(options(tmp_path), picture_model=str(write_vision(tmp_path / "pictures")))
    return load_package(model, beside, OnnxBackend)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package of both, which no test changes."""
    return pair(tmp_path_factory.mktemp("pair"))


def of_texts(package: Package) -> OnnxBackend:
    """Open a package's graph of texts."""
    return OnnxBackend(package.graph, package.layout, BackendOptions())


def text_vectors(package: Package, backend: Backend) -> FloatArray:
    """Return unit vectors of the texts."""
    return compute_vectors(backend, package.open_tokenizer(40), package.pooler, TEXTS)


def picture_vectors(package: Package, pixels: Pixels) -> FloatArray:
    """Return unit vectors of pixels, (B, S, S, 3)."""
    return vectors_of(backend_of(package), package.pooler, pixels)


def vectors_of(backend: Backend, pooler: Pooler, pixels: Pixels) -> FloatArray:
    """Return unit vectors of pixels, (B, S, S, 3)."""
    items = [Item(content_ids(p, TOKENS), n, pixels=p) for n, p in enumerate(pixels)]
    of_pictures = [ItemOptions(are_pictures=True)] * len(items)
    rows = raw_vectors(backend, items, pooler, of_pictures)
    return finish(rows, dimensions=None, normalize=True)


@pytest.mark.parametrize("kind", CONFIGS)
def test_vectors_of_pictures_are_those_of_the_published_code(tmp_path: Path, kind: str) -> None:
    """Bytes of pixels give what a plain reference gives, and what the authors' code was seen to give."""
    folder = write_vision(tmp_path / kind, kind)
    processor = read_processor(folder, "clip")
    assert processor is not None
    path = tmp_path / "pictures.onnx"
    export_nomic_pictures(folder, CONFIGS[kind], processor.scale(), path)
    backend = OnnxBackend(path, Layout.PACKED, BackendOptions())
    pixels = some_pixels()
    vectors = vectors_of(backend, Pooler(), pixels)
    published = np.load(HERE / "nomic" / "nomic_vision.npy")[list(CONFIGS).index(kind)]
    assert np.abs(vectors - published).max() < TOLERANCE
    assert np.abs(vectors - reference(CONFIGS[kind], scaled(pixels))).max() < TOLERANCE
    alone = vectors_of(backend, Pooler(), pixels[1:2])
    assert np.abs(alone[0] - vectors[1]).max() < TOLERANCE


def test_files_become_vectors(tmp_path: Path, paired: Package) -> None:
    """Pixels are those of an image processor whose bytes were compared with transformers', vectors the reference's."""
    tower = paired.spec.pictures
    assert isinstance(tower, PictureTower)
    assert (tower.size, tower.tokens, tower.is_square) == (IMAGE, TOKENS, True)
    siglip = tower_of(tmp_path, "siglip")
    assert isinstance(siglip, PictureTower)
    stretched = replace(siglip, resample=3)
    pictures = [decode_picture(form(), BOUNDS) for form in FORMS.values()]
    pixels = np.stack([tower.pixels(picture) for picture in pictures])
    for picture, own in zip(pictures, pixels, strict=True):
        np.testing.assert_array_equal(own, stretched.pixels(picture))
    expected = reference(CONFIGS["published"], scaled(pixels))
    assert np.abs(picture_vectors(paired, pixels) - expected).max() < TOLERANCE


def test_texts_and_their_space_stay_what_they_were_without_pictures(
    tmp_path: Path, paired: Package
) -> None:
    """A model of pictures beside it makes another space, whose texts have the same vectors."""
    alone = load_package(str(write_texts(tmp_path / "texts")), options(tmp_path), OnnxBackend)
    vectors = text_vectors(paired, backend_of(paired))
    np.testing.assert_array_equal(vectors, text_vectors(alone, of_texts(alone)))
    assert alone.spec.pictures is None
    # The fingerprint as it was before there were models of pictures beside others.
    assert alone.spec.space == "70f710d2539abf7019f900b3ba13331b" != paired.spec.space
    assert paired.spec.prompts == alone.spec.prompts
    assert paired.spec.pictures is not None
    check_picture_probes(
        paired.artefact, backend_of(paired), paired.spec.pictures, paired.probe_pooler
    )


def test_a_card_norms_texts_beside_pictures(tmp_path: Path, paired: Package) -> None:
    """nomic-embed-text-v1.5's texts go through a layer norm where there are pictures, and only there."""
    texts = write_texts(tmp_path / "texts")
    (tmp_path / "normed.toml").write_text(CARD.format(name="normed", folder=texts))
    package = pair(tmp_path, model="normed")
    # F.layer_norm of raw vectors; unit ones differ by a factor, which its epsilon sees.
    rows = raw_texts(paired)
    centred = rows - rows.mean(1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    expected = normed / np.linalg.norm(normed, axis=1, keepdims=True)
    assert np.abs(text_vectors(package, backend_of(package)) - expected).max() < TOLERANCE
    plain = text_vectors(paired, backend_of(paired))
    assert np.abs(plain - expected).max() > 100 * TOLERANCE
    pixels = some_pixels()
    pictures = picture_vectors(package, pixels)
    assert np.abs(pictures - reference(CONFIGS["published"], scaled(pixels))).max() < TOLERANCE
    alone = read_model_folder(texts, {"layer_norm_beside_pictures": True})
    assert type(alone.head) is Head


def raw_texts(package: Package) -> NDArray[np.float64]:
    """Return the texts' vectors before they are scaled, [B, H]."""
    tokenizer = package.open_tokenizer(40)
    ids = [np.array(tokenizer.library.encode(text).ids, np.int32) for text in TEXTS]
    items = [Item(each, number) for number, each in enumerate(ids)]
    return raw_vectors(of_texts(package), items, package.pooler).astype(np.float64)


def test_every_part_of_the_pictures_is_part_of_the_space(tmp_path: Path) -> None:
    """Other weights, another config.json or other pixels of the model of pictures make another space."""
    texts = read_model_folder(write_texts(tmp_path / "texts"))
    folder = write_vision(tmp_path / "pictures")
    hashes = HashCache(tmp_path / "hashes.json")
    spaces = [space_fingerprint(texts, hashes)]

    def add() -> None:
        spaces.append(space_fingerprint(with_pictures(texts, folder), hashes))

    add()
    weights = load_file(folder / "model.safetensors")
    moved = {**weights, "selector.norm1.bias": weights["selector.norm1.bias"] + 1}
    save_file(moved, folder / "model.safetensors")
    add()
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "ref_feat_shape": [5, 5]})
    add()
    write_vision(folder, resample=2)
    add()
    normed = with_pictures(texts, folder, norms_texts=True)
    spaces.append(space_fingerprint(normed, hashes))
    assert len(set(spaces)) == len(spaces)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prenorm", False),
        ("no_cls_token", True),
        ("no_embed_class", True),
        ("register_tokens", 4),
        ("sinusoidal_pos_embedding", True),
        ("rotary_emb_fraction", 1.0),
        ("global_pool", "avg"),
        ("activation_function", "relu"),
        ("num_heads_kv", 1),
        ("num_channels", 1),
        ("layer_scale", True),
        ("no_last_ln", False),
        ("n_head", 16),
        ("n_inner", -1.5),
        ("n_embd", 64),
        ("patch_size", 7),
        ("ref_feat_shape", [4, 4, 4]),
        ("ref_feat_shape", "all"),
        ("img_size", [32, 32]),
        ("norm_mlp", "yes"),
    ],
)
def test_fields_that_make_another_model_are_refused(
    tmp_path: Path, field: str, value: object
) -> None:
    """Nothing of the pictures' config.json is passed over that would change vectors: the field is named."""
    texts = read_model_folder(write_texts(tmp_path / "texts"))
    folder = write_vision(tmp_path / "pictures")
    write_json(folder / "config.json", {**CONFIGS["published"], field: value})
    with pytest.raises(FormatError, match=rf"pictures/config.json: '?{field}|'{field}'"):
        with_pictures(texts, folder)


def test_what_cannot_be_one_model_is_refused(tmp_path: Path) -> None:
    """Each refusal says which of the two folders is wrong, and how."""
    texts = read_model_folder(write_texts(tmp_path / "texts"))
    pictures = write_vision(tmp_path / "pictures")
    with pytest.raises(FormatError, match="architectures: a picture_model must be a Nomic"):
        with_pictures(texts, write_tiny_bert(tmp_path / "bert"))
    with pytest.raises(FormatError, match="crop_size: pictures would have 30"):
        with_pictures(texts, write_vision(tmp_path / "cropped", crop_size=30))
    (write_vision(tmp_path / "silent") / "preprocessor_config.json").unlink()
    with pytest.raises(FormatError, match=r"no preprocessor_config\.json"):
        with_pictures(texts, tmp_path / "silent")
    with pytest.raises(FormatError, match="takes pictures by itself"):
        with_pictures(with_pictures(texts, pictures), pictures)
    with pytest.raises(FormatError, match="takes pictures only: serve the model of texts"):
        read_model_folder(pictures)


def test_a_missing_model_of_pictures_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    """A name that stands for no model is refused at once, though the model of texts is there."""
    texts = write_texts(tmp_path / "texts")
    beside: SourceOptions = replace(options(tmp_path), picture_model="no-such-model")
    with pytest.raises(SourceError, match="no-such-model"):
        check_source(str(texts), beside)
