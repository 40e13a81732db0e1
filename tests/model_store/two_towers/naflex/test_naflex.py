"""SigLIP 2 NaFlex against transformers 4.57 and 5: from the bytes of files, of any shape, to vectors."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture
from nestvec.engine.pictures.naflex import NaFlexTower
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import FloatArray, Item, ItemOptions, Truncation
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import FormatError
from nestvec.export.graph.builder import GraphBuilder
from nestvec.model_store.artefacts.picture_build import check_picture_probes
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.folder.picture_reading import read_pictures
from nestvec.model_store.package import Package, load_package
from nestvec.model_store.two_towers.naflex_settings import NaFlexSettings, read_naflex_settings

from tests.model_store.test_package import options
from tests.model_store.two_towers.naflex.models import (
    CONFIG,
    HERE,
    PICTURES,
    PROCESSOR,
    TEXTS,
    VERSIONS,
    write_naflex,
)
from tests.model_store.two_towers.test_towers import backend_of
from tests.support.tiny import write_json

TOLERANCE = 1e-5
WRITTEN_BY_5 = {"transformers_version": "5.2.0"}
BOUNDS = PictureBounds()
OPTIONS = ItemOptions(are_pictures=True)
each_version = pytest.mark.parametrize("version", VERSIONS)


@cache
def expected(version: int) -> dict[str, Any]:
    """Return what a version of transformers says."""
    content: dict[str, Any] = json.loads((HERE / f"expected-{version}.json").read_text())
    return content


def stored(version: int, name: str) -> FloatArray:
    """Return an array that a version of transformers computed."""
    array: FloatArray = np.load(HERE / f"expected-{version}.npz")[name]
    return array


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> NaFlexSettings:
    """How the tiny model takes pictures."""
    folder = write_naflex(tmp_path_factory.mktemp("naflex"))
    read = read_pictures(folder, CONFIG)
    assert isinstance(read, NaFlexSettings)
    return read


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The tiny model, exported."""
    folder = tmp_path_factory.mktemp("exported")
    return load_package(str(write_naflex(folder / "model")), options(folder), OnnxBackend)


@each_version
@pytest.mark.parametrize("name", PICTURES)
def test_patches_equal_those_of_transformers(
    settings: NaFlexSettings, version: int, name: str
) -> None:
    """The shape of every picture, and every byte of its patches, are those of the image processor on Pillow."""
    pixels = settings.tower.pixels(decode_picture(PICTURES[name](), BOUNDS))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    assert [*pixels.shape[:2], digest] == expected(version)["pixels"][name]
    assert len(settings.tower.ids(pixels)) == pixels.shape[0] * pixels.shape[1]


@each_version
def test_scaled_patches_equal_those_of_transformers(
    settings: NaFlexSettings, tmp_path: Path, version: int
) -> None:
    """What the graph makes of bytes is what the image processor makes of them, to 1e-6."""
    pixels = settings.tower.pixels(decode_picture(PICTURES["wide"](), BOUNDS))
    graph = GraphBuilder("scale")
    taken = graph.input("pixels", "uint8", pixels.shape)
    graph.output(settings.scale.add_to(graph, taken), "scaled", pixels.shape)
    graph.save(tmp_path / "scale.onnx")
    (scaled,) = ort.InferenceSession(tmp_path / "scale.onnx").run(None, {"pixels": pixels})
    wanted = stored(version, "scaled")
    assert np.abs(scaled.reshape(wanted.shape) - wanted).max() < 1e-6


def items_of(tower: Any, names: list[str]) -> list[Item]:
    """Return an item for each picture of these names."""
    pixels = [tower.pixels(decode_picture(PICTURES[name](), BOUNDS)) for name in names]
    return [Item(tower.ids(each), number, pixels=each) for number, each in enumerate(pixels)]


def vectors_of(package: Package, items: list[Item]) -> FloatArray:
    """Return unit vectors of pictures that run together."""
    rows = raw_vectors(backend_of(package), items, package.pooler, [OPTIONS] * len(items))
    return finish(rows, dimensions=None, normalize=True)


def comparable(version: int) -> list[str]:
    """Return the pictures whose vectors a version computes rightly.

    Where patches have one column, torch's own `interpolate` on CPUs gives all rows the first one's position (2.13 and
    before); version 5 of transformers does without it.
    """
    return [
        name
        for name, (rows, columns, _) in expected(version)["pixels"].items()
        if version >= 5 or columns > 1 or rows == 1
    ]


@each_version
def test_vectors_of_all_shapes_in_one_batch_equal_those_of_transformers(
    package: Package, version: int
) -> None:
    """Pictures of any shapes, in one batch without padding, have the vectors that transformers gives with padding."""
    names = comparable(version)
    assert len(names) >= len(PICTURES) - 2
    wanted = stored(version, "pictures")[[list(PICTURES).index(name) for name in names]]
    got = vectors_of(package, items_of(package.spec.pictures, names))
    assert np.abs(got - wanted).max() < TOLERANCE


@pytest.mark.parametrize("name", ["square", "1:5", "7:3", "200x3", "1:200", "many pixels"])
def test_a_vector_depends_on_its_own_picture_only(package: Package, name: str) -> None:
    """Alone a picture has the vector that it has in any company."""
    names = [name, "5:1", "one pixel"]
    together = vectors_of(package, items_of(package.spec.pictures, names))
    alone = vectors_of(package, items_of(package.spec.pictures, names[:1]))
    assert np.abs(together[0] - alone[0]).max() < TOLERANCE


@each_version
def test_texts_equal_those_of_transformers(package: Package, tmp_path: Path, version: int) -> None:
    """Texts are made small, end with the end token and are padded to 64 tokens by one that is read."""
    config = {"transformers_version": expected(version)["transformers"]}
    tokenizer = read_model_folder(write_naflex(tmp_path, config)).open_tokenizer()
    encoded = tokenizer.encode_texts(TEXTS, TokenizeOptions(Truncation.END))
    assert [each.ids.tolist() for each in encoded] == expected(version)["ids"]
    items = [Item(each.ids, number) for number, each in enumerate(encoded)]
    rows = raw_vectors(backend_of(package), items, package.pooler, [ItemOptions()] * len(items))
    vectors = finish(rows, dimensions=None, normalize=True)
    assert np.abs(vectors - stored(version, "texts")).max() < TOLERANCE
    assert package.spec.max_tokens == 64


@pytest.mark.parametrize(
    ("config", "says", "gives"),
    [({}, "true", "small"), ({}, "false", "as it is"), (WRITTEN_BY_5, "false", "small")],
)
def test_case_of_texts(tmp_path: Path, config: dict[str, Any], says: str, gives: str) -> None:
    """The authors' folders ask for small letters; version 5's class makes them small whatever a folder says."""
    write_naflex(tmp_path, config)
    path = tmp_path / "tokenizer_config.json"
    write_json(path, {**json.loads(path.read_text()), "do_lower_case": says == "true"})
    library = read_model_folder(tmp_path).open_tokenizer().library
    is_small = library.encode("RED").ids == library.encode("red").ids
    assert is_small == (gives == "small")


def test_padding_stands_where_the_class_puts_it(tmp_path: Path) -> None:
    """Gemma's tokenizers pad on the left, unless a file says otherwise, as the authors' do."""
    write_naflex(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    fields = json.loads(path.read_text())
    sides = {}
    for side in ("right", None):
        write_json(path, {k: v for k, v in {**fields, "padding_side": side}.items() if v})
        padding = read_model_folder(tmp_path).tokenizer_changes.padding
        assert padding is not None
        assert (padding.tokens, padding.token_id) == (64, 0)
        sides[side] = padding.is_left
    assert sides == {"right": False, None: True}


def test_probes_of_pictures_do_not_depend_on_the_budget(package: Package) -> None:
    """A graph is checked at start by the same pictures, however many patches the operator allows."""
    tower = package.spec.pictures
    assert isinstance(tower, NaFlexTower)
    other = NaFlexTower(tower.patch_size, 1000, tower.resample)
    check_picture_probes(package.artefact, backend_of(package), other, package.probe_pooler)
    assert other.probe_sizes() == tower.probe_sizes()


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("do_resize", False, "do_resize"),
        ("max_num_patches", 15, "max_num_patches"),
        ("max_num_patches", 5000, "max_num_patches"),
        ("max_num_patches", "many", "max_num_patches"),
        ("patch_size", 16, "patch_size"),
        ("patch_size", 0, "patch_size"),
        ("resample", 9, "resample"),
        ("do_normalize", "yes", "do_normalize"),
        ("image_std", [0.5, 0.5, 0], "image_std"),
        ("image_processor_type", "SiglipImageProcessor", "image_processor_type"),
        ("image_processor_type", ["Siglip2ImageProcessor"], "image_processor_type"),
    ],
)
def test_what_is_not_done_to_pictures_is_refused(
    tmp_path: Path, field: str, value: Any, named: str
) -> None:
    """A field that would change patches is honoured or refused by its name, never ignored."""
    write_naflex(tmp_path, **{field: value})
    with pytest.raises(FormatError, match=rf"preprocessor_config.json: {named}"):
        read_naflex_settings(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("field", "value"), [("num_patches", 24), ("num_channels", 1), ("vision_use_head", False)]
)
def test_towers_that_are_not_built_are_refused(tmp_path: Path, field: str, value: Any) -> None:
    """What config.json says of the tower of pictures is built, or refused by its name."""
    write_naflex(tmp_path)
    config = {**CONFIG, "vision_config": {**CONFIG["vision_config"], field: value}}
    with pytest.raises(FormatError, match=field):
        read_naflex_settings(tmp_path, config)


@pytest.mark.parametrize("kind", ["Fast", "Pil", ""])
def test_classes_that_do_the_same(tmp_path: Path, kind: str) -> None:
    """The class's other forms say the same, and what a file leaves out has the class's defaults."""
    write_naflex(tmp_path)
    fields = {"image_processor_type": f"Siglip2ImageProcessor{kind}", "patch_size": 8}
    write_json(tmp_path / "preprocessor_config.json", fields)
    read = read_naflex_settings(tmp_path, CONFIG)
    assert read is not None
    assert isinstance(read.tower, NaFlexTower)
    assert (read.tower.max_patches, read.tower.resample) == (256, 2)
    assert read.scale.mean == read.scale.std == (0.5, 0.5, 0.5)
    (tmp_path / "preprocessor_config.json").unlink()
    assert read_naflex_settings(tmp_path, CONFIG) is None


def test_the_processor_s_fields_are_in_the_fingerprint(settings: NaFlexSettings) -> None:
    """Vectors of other patches are of another space."""
    summary = settings.summary()
    assert summary["max_patches"] == PROCESSOR["max_num_patches"]
    assert summary["std"] == tuple(PROCESSOR["image_std"])
