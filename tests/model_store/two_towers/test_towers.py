"""CLIP and SigLIP against transformers: from the bytes of files and from texts to vectors of one space."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.backends.two_towers import TwoTowerBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture
from nestvec.engine.pictures.preprocessing import PictureTower
from nestvec.engine.text.documents import encode_windows
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import FloatArray, Item, ItemOptions, Truncation
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import FormatError, ProbeError
from nestvec.export.graph.builder import GraphBuilder
from nestvec.model_store.artefacts.picture_build import PICTURE_PROBES, check_picture_probes
from nestvec.model_store.artefacts.probes import compute_vectors
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.package import Package, load_package
from nestvec.model_store.two_towers.picture_settings import read_picture_settings

from tests.engine.pictures.forms import FORMS
from tests.model_store.test_package import options
from tests.model_store.two_towers.towers import CONFIGS, END, HERE, TEXTS, write_model
from tests.support.tiny import write_json

TOLERANCE = 1e-5
each = pytest.mark.parametrize("kind", sorted(CONFIGS))
BOUNDS = PictureBounds()


def stored(kind: str, name: str) -> FloatArray:
    """Return an array that transformers computed."""
    array: FloatArray = np.load(HERE / f"{kind}_{name}.npy")
    return array


def tower_of(folder: Path, kind: str) -> PictureTower:
    """Return how a kind's tiny model takes pictures."""
    settings = read_picture_settings(write_model(folder, kind), CONFIGS[kind])
    assert settings is not None
    assert isinstance(settings.tower, PictureTower)
    return settings.tower


def backend_of(package: Package) -> TwoTowerBackend:
    """Open both graphs of a package."""
    assert package.picture_graph is not None
    texts, pictures = (
        OnnxBackend(path, package.layout, BackendOptions())
        for path in (package.graph, package.picture_graph)
    )
    return TwoTowerBackend(texts, pictures)


def items_of(tower: PictureTower) -> list[Item]:
    """Return an item for each form of picture."""
    pixels = [tower.pixels(decode_picture(form(), BOUNDS)) for form in FORMS.values()]
    return [Item(tower.ids(each), number, pixels=each) for number, each in enumerate(pixels)]


@each
@pytest.mark.parametrize("form", FORMS)
def test_pixels_equal_those_of_transformers(tmp_path: Path, kind: str, form: str) -> None:
    """Resized and cropped bytes of every form of file are those of the image processor on Pillow."""
    pixels = tower_of(tmp_path, kind).pixels(decode_picture(FORMS[form](), BOUNDS))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    expected = json.loads((HERE / f"{kind}.json").read_text())["pixels"][form]
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == expected


@each
def test_scaled_pixels_equal_those_of_transformers(tmp_path: Path, kind: str) -> None:
    """What the graph makes of bytes is what the image processor makes of them, to 1e-6."""
    settings = read_picture_settings(write_model(tmp_path, kind), CONFIGS[kind])
    assert settings is not None
    assert isinstance(settings.tower, PictureTower)
    pixels = settings.tower.pixels(decode_picture(FORMS["wide"](), BOUNDS))
    graph = GraphBuilder("scale")
    taken = graph.input("pixels", "uint8", pixels.shape)
    graph.output(settings.scale.add_to(graph, taken), "scaled", pixels.shape)
    graph.save(tmp_path / "scale.onnx")
    (scaled,) = ort.InferenceSession(tmp_path / "scale.onnx").run(None, {"pixels": pixels})
    assert np.abs(np.moveaxis(scaled, -1, 0) - stored(kind, "scaled")).max() < 1e-6


@each
def test_vectors_equal_those_of_transformers(tmp_path: Path, kind: str) -> None:
    """Vectors of pictures and of texts are transformers', alone and together, and of one width."""
    package = load_package(
        str(write_model(tmp_path / "model", kind)), options(tmp_path), OnnxBackend
    )
    backend = backend_of(package)
    assert isinstance(package.spec.pictures, PictureTower)
    items = items_of(package.spec.pictures)
    of_pictures = [ItemOptions(are_pictures=True)]
    together = raw_vectors(backend, items, package.pooler, of_pictures * len(items))
    alone = raw_vectors(backend, items[:1], package.pooler, of_pictures)
    vectors = finish(np.concatenate([together, alone]), dimensions=None, normalize=True)
    expected = stored(kind, "pictures")
    assert np.abs(vectors - np.concatenate([expected, expected[:1]])).max() < TOLERANCE
    texts = compute_vectors(backend, package.open_tokenizer(16), package.pooler, TEXTS)
    assert np.abs(texts - stored(kind, "texts")).max() < TOLERANCE
    assert package.spec.hidden_size == texts.shape[1] == vectors.shape[1]


def test_a_damaged_graph_of_pictures_is_told_at_start(tmp_path: Path) -> None:
    """Pictures have golden probes of their own, which each start computes again."""
    package = load_package(
        str(write_model(tmp_path / "model", "clip")), options(tmp_path), OnnxBackend
    )
    tower = package.spec.pictures
    assert tower is not None
    backend = backend_of(package)
    checked = package.artefact, backend, tower, package.probe_pooler
    check_picture_probes(*checked)
    path = package.artefact / PICTURE_PROBES
    np.save(path, -np.load(path))
    with pytest.raises(ProbeError, match="differ"):
        check_picture_probes(*checked)


@each
@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("size", {"shortest_edge": 30, "longest_edge": 60}, "size"),
        ("size", {"height": 30, "width": 20}, "size"),
        ("size", -1, "size"),
        ("size", "many", "size"),
        ("crop_size", 20, "crop_size"),
        ("do_resize", False, "do_resize"),
        ("do_normalize", "yes", "do_normalize"),
        ("resample", 9, "resample"),
        ("rescale_factor", 0, "rescale_factor"),
        ("image_mean", [0.5], "image_mean"),
        ("image_std", [0.5, 0.5, 0], "image_std"),
        ("image_processor_type", "ViTImageProcessor", "image_processor_type"),
        ("image_processor_type", ["CLIPImageProcessor"], "image_processor_type"),
    ],
)
def test_what_is_not_done_to_pictures_is_refused(
    tmp_path: Path, kind: str, field: str, value: Any, named: str
) -> None:
    """A field that would change pixels is honoured or refused by its name, never ignored."""
    changed = {"do_center_crop": True} if field == "crop_size" else {}
    write_model(tmp_path, kind, **changed, **{field: value})
    with pytest.raises(FormatError, match=rf"preprocessor_config.json: {named}"):
        read_picture_settings(tmp_path, CONFIGS[kind])


@each
def test_a_folder_that_says_nothing_of_pictures_takes_texts_only(tmp_path: Path, kind: str) -> None:
    """Without a preprocessor_config.json nothing is guessed; version 5 writes it into another file."""
    write_model(tmp_path, kind)
    expected = read_picture_settings(tmp_path, CONFIGS[kind])
    path = tmp_path / "preprocessor_config.json"
    write_json(
        tmp_path / "processor_config.json", {"image_processor": json.loads(path.read_text())}
    )
    path.unlink()
    assert read_picture_settings(tmp_path, CONFIGS[kind]) == expected
    (tmp_path / "processor_config.json").unlink()
    assert read_model_folder(tmp_path).pictures is None


def test_padding_is_read_by_siglip_only(tmp_path: Path) -> None:
    """Texts of SigLIP have one length; those of CLIP their own."""
    lengths = {}
    for kind in CONFIGS:
        folder = read_model_folder(write_model(tmp_path / kind, kind))
        tokenizer = folder.open_tokenizer()
        lengths[kind] = [len(tokenizer.library.encode(text).ids) for text in TEXTS]
        padding = folder.tokenizer_changes.padding
        assert (padding is not None) == (kind == "siglip")
        if padding is not None:
            assert padding.tokens == 16
    assert len(set(lengths["clip"])) > 1


def test_long_texts_of_siglip_run_in_whole_windows(tmp_path: Path) -> None:
    """Every window has the length that the model was trained with, and a short text in windows too."""
    tokenizer = read_model_folder(write_model(tmp_path, "siglip")).open_tokenizer()
    options = TokenizeOptions(Truncation.WINDOWS)
    short, long = encode_windows(tokenizer, ["red", "red and green " * 20], options)
    assert len(short.ids) == 16
    assert long.windows is not None
    assert {len(part.ids) for part in long.windows.parts} == {16}


def test_a_text_of_clip_ends_with_its_first_end_token(tmp_path: Path) -> None:
    """That is the one which is pooled, so what a text spells behind it changes nothing."""
    tokenizer = read_model_folder(write_model(tmp_path, "clip")).open_tokenizer()
    options = TokenizeOptions(Truncation.END)
    plain, spelt = tokenizer.encode_texts(["a red", f"a red {END} blue and green"], options)
    assert spelt.ids.tolist() == plain.ids.tolist()


LIBRARY_5 = {
    "modality_config": {
        "text": {"method": "get_text_features", "method_output_name": "pooler_output"},
        "image": {"method": "get_image_features", "method_output_name": "pooler_output"},
    },
    "module_output_name": "sentence_embedding",
    "transformer_task": "feature-extraction",
}


@pytest.mark.parametrize(
    ("class_name", "place", "settings"),
    [
        ("sentence_transformers.models.CLIPModel", "0_CLIPModel", {}),
        ("sentence_transformers.models.CLIPModel", "", {}),
        ("sentence_transformers.base.modules.transformer.Transformer", "", LIBRARY_5),
    ],
)
def test_folders_of_sentence_transformers_are_read(
    tmp_path: Path, class_name: str, place: str, settings: dict[str, Any]
) -> None:
    """In the class of its own that older versions have for CLIP, and as version 5.4 and newer write it."""
    write_model(tmp_path / place, "clip")
    chain = [{"idx": 0, "name": "0", "path": place, "type": class_name}]
    write_json(tmp_path / "modules.json", chain)
    if settings:
        write_json(tmp_path / "sentence_bert_config.json", settings)
    folder = read_model_folder(tmp_path)
    assert folder.pictures is not None
    assert (folder.head.pooling, folder.head.dimensions) == ("last_token", 24)
    chain.append(
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.models.Dense"}
    )
    write_json(tmp_path / "modules.json", chain)
    with pytest.raises(FormatError, match="Dense"):
        read_model_folder(tmp_path)


def test_fields_of_both_towers_are_looked_at(tmp_path: Path) -> None:
    """What would change vectors is refused inside the towers' own fields too, by its whole name."""
    write_model(tmp_path, "clip")
    for tower in ("text_config", "vision_config"):
        config = {**CONFIGS["clip"], tower: {**CONFIGS["clip"][tower], "pruned_heads": {"0": [1]}}}
        write_json(tmp_path / "config.json", config)
        with pytest.raises(FormatError, match=rf"config.json: {tower}.pruned_heads"):
            read_model_folder(tmp_path)


def test_settings_that_ask_for_other_outputs_are_refused(tmp_path: Path) -> None:
    """A chain that takes the states of texts, and not their vectors, is no model of one space."""
    write_model(tmp_path, "clip")
    other = {**LIBRARY_5, "modality_config": {"text": {"method": "forward"}}}
    write_json(tmp_path / "sentence_bert_config.json", other)
    with pytest.raises(FormatError, match=r"sentence_bert_config.json: modality_config"):
        read_model_folder(tmp_path)
