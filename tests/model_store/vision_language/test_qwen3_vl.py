"""Qwen3-VL against transformers: from the bytes of files, and texts around them, to vectors of one space."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.prefix_backend import PrefixBackend
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.types import OutputKind, Truncation
from nestvec.errors import FormatError, InputError, InputTooLongError, ProbeError
from nestvec.model_store.artefacts.picture_build import PICTURE_PROBES, check_picture_probes
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.package import load_package
from nestvec.model_store.vision_language.picture_settings import read_prefix_settings

from tests.engine.pictures.forms import FORMS, colours, encoded
from tests.model_store.test_package import options
from tests.model_store.vision_language.in_process import Embed
from tests.model_store.vision_language.inputs import EXPECTED, MADE, NAMES, expected, input_of
from tests.model_store.vision_language.models import CONFIG, INSTRUCTION, write_model
from tests.support.tiny import write_json

TOLERANCE = 1e-5
WIDE = Picture(FORMS["wide"]())


def test_pixels_equal_those_of_transformers(tmp_path: Path) -> None:
    """Sizes, and the bytes of patches in their order, are those of the image processor on Pillow."""
    settings = read_prefix_settings(write_model(tmp_path), CONFIG)
    assert settings is not None
    for form, (grid, digest) in MADE["pixels"].items():
        image = decode_picture(FORMS[form](), PictureBounds())
        picture = settings.tower.read(image)
        assert picture.grids == ((*grid, 2),), form
        assert hashlib.sha256(picture.patches.tobytes()).hexdigest() == digest, form
        assert settings.tower.tokens_of(*image.size) == len(picture.patches) // 4


def test_vectors_equal_those_of_transformers(embed: Embed) -> None:
    """Texts, pictures and both, one picture or two, all in one call: vectors and tokens are transformers'."""
    result = embed(*map(input_of, NAMES))
    assert np.abs(result.vectors - EXPECTED).max() < TOLERANCE
    assert list(result.input_tokens) == [MADE["tokens"][name] for name in NAMES]


@pytest.mark.parametrize("name", ["text", "wide", "before", "two"])
def test_an_input_alone_equals_it_among_others(embed: Embed, name: str) -> None:
    """What an input is batched with changes nothing of its vector."""
    assert np.abs(embed(input_of(name)).vectors[0] - expected(name)).max() < TOLERANCE


def test_what_is_wanted_stands_in_the_systems_message(embed: Embed) -> None:
    """As `instruction`, as a prompt, or by default; a full stop is put behind words without one."""
    for asked in (
        {"instruction": "Find what is asked for"},
        {"prompt": " Find what is asked for. "},
    ):
        result = embed("a red apple", **asked)
        assert np.abs(result.vectors[0] - expected("query")).max() < TOLERANCE
    for asked in ({}, {"prompt_role": "query"}, {"instruction": ""}):
        assert np.abs(embed("a red apple", **asked).vectors[0] - expected("text")).max() < TOLERANCE


def test_messages_of_texts_are_texts(embed: Embed) -> None:
    """An input of texts alone is what their text is, whatever is asked of it."""
    mixed = MixedInput(("a red ", "apple"))
    assert np.abs(embed(mixed).vectors[0] - expected("text")).max() < TOLERANCE
    tokens = embed(mixed, kind=OutputKind.TOKENS)
    assert tokens.rows == (MADE["tokens"]["text"],)
    same = embed("a red apple", kind=OutputKind.TOKENS)
    assert np.abs(tokens.vectors - same.vectors).max() < TOLERANCE


def test_placeholders_in_texts_are_no_pictures(embed: Embed) -> None:
    """Whoever spells a picture's tokens gets the vector of a text, and moves no picture of the same input."""
    spelt = "a <|vision_start|><|image_pad|><|image_pad|><|vision_end|> b"
    alone = embed(spelt)
    assert alone.input_tokens[0] < MADE["tokens"]["wide"]
    both = embed(MixedInput((spelt, WIDE)), spelt)
    assert np.abs(both.vectors[1] - alone.vectors[0]).max() < TOLERANCE
    spelt_tokens = alone.input_tokens[0] - embed("").input_tokens[0]
    assert both.input_tokens[0] == MADE["tokens"]["wide"] + spelt_tokens
    assert np.abs(both.vectors[0] - expected("wide")).max() > TOLERANCE


def test_texts_give_way_and_pictures_do_not(embed: Embed) -> None:
    """A limit on tokens cuts what the call wrote, at the side that is asked for; pictures are never cut."""
    picture = WIDE
    whole = MADE["tokens"]["wide"]
    mixed = MixedInput(("red ", picture, " apple"))
    for truncate, left in (
        (Truncation.END, MixedInput(("red ", picture))),
        (Truncation.START, MixedInput((picture, " apple"))),
    ):
        limit = embed(left).input_tokens[0]
        cut = embed(mixed, truncate=truncate, max_tokens=limit)
        assert (cut.input_tokens, cut.is_truncated) == ((limit,), (True,))
        assert np.abs(cut.vectors - embed(left).vectors).max() < TOLERANCE
    for truncate in Truncation:
        with pytest.raises(InputTooLongError) as caught:
            embed("a", picture, truncate=truncate, max_tokens=whole - 1)
        assert caught.value.input_index == 1


def test_hostile_pictures_are_refused_where_they_stand(embed: Embed) -> None:
    """A damaged file, a line of pixels, or more pictures than an input may have tokens for, are the caller's error."""
    damaged = Picture(FORMS["png"]()[:90])
    line = Picture(encoded(colours(201, 1), "PNG"))
    for broken in (damaged, line):
        with pytest.raises(InputError) as caught:
            embed("a", MixedInput(("b", WIDE, broken)))
        assert caught.value.input_index == 1
    narrow = embed(Picture(encoded(colours(200, 1), "PNG")))
    assert np.isfinite(narrow.vectors).all()
    with pytest.raises(InputTooLongError):
        embed(MixedInput((WIDE,) * 17))


def test_damaged_graphs_are_told_at_start(tmp_path: Path) -> None:
    """Tower and decoder have golden probes of pictures, which each start computes again."""
    (tmp_path / "model").mkdir()
    package = load_package(str(write_model(tmp_path / "model")), options(tmp_path), OnnxBackend)
    assert package.picture_graph is not None
    decoder, tower = (
        OnnxBackend(path, package.layout, BackendOptions())
        for path in (package.graph, package.picture_graph)
    )
    pictures = package.spec.pictures
    assert pictures is not None
    checked = package.artefact, PrefixBackend(decoder, tower), pictures, package.probe_pooler
    check_picture_probes(*checked)
    path = package.artefact / PICTURE_PROBES
    np.save(path, -np.load(path))
    with pytest.raises(ProbeError, match="differ"):
        check_picture_probes(*checked)
    with pytest.raises(FormatError, match="precision int8"):
        load_package(
            str(tmp_path / "model"),
            options(tmp_path),
            OnnxBackend,
            build=BuildOptions(precision=Precision.INT8),
        )


def _with(part: str, **fields: Any) -> dict[str, Any]:
    return {**CONFIG, part: {**CONFIG[part], **fields}}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (_with("text_config", rope_theta=None), "rope_theta"),
        (_with("text_config", attention_bias=True), "attention_bias"),
        (_with("text_config", rope_scaling={"mrope_section": [4, 4, 2]}), "mrope_section"),
        (_with("text_config", rope_scaling={"mrope_section": [1, 1, 6]}), "mrope_section"),
        (
            _with(
                "text_config", rope_scaling={"mrope_section": [4, 2, 2], "mrope_interleaved": False}
            ),
            "mrope_interleaved",
        ),
        (_with("text_config", pruned_heads={"0": [1]}), "text_config.pruned_heads"),
        (_with("vision_config", in_channels=1), "in_channels"),
        (_with("vision_config", num_position_embeddings=35), "num_position_embeddings"),
        (_with("vision_config", deepstack_visual_indexes=[2, 0]), "deepstack_visual_indexes"),
        (_with("vision_config", deepstack_visual_indexes=[3]), "deepstack_visual_indexes"),
        (_with("vision_config", out_hidden_size=16), "out_hidden_size"),
        (_with("vision_config", num_heads=4), "num_heads"),
        ({**CONFIG, "vision_config": None}, "vision_config"),
    ],
)
def test_what_no_graph_has_is_refused(
    tmp_path: Path, config: Mapping[str, Any], named: str
) -> None:
    """A field of either part that is not computed here is refused by its name."""
    write_model(tmp_path)
    write_json(tmp_path / "config.json", dict(config))
    with pytest.raises(FormatError, match=named):
        read_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", {"shortest_edge": 256}),
        ("max_pixels", 500),
        ("min_pixels", 64),
        ("min_pixels", "256"),
        ("patch_size", 8),
        ("merge_size", 1),
        ("do_resize", False),
        ("resample", 9),
        ("image_mean", [0.5]),
        ("image_processor_type", "Idefics3ImageProcessor"),
    ],
)
def test_what_is_not_done_to_pictures_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    """A field that would change pixels is honoured or refused by its name, never ignored."""
    write_model(tmp_path, **{field: value})
    with pytest.raises(FormatError, match=rf"preprocessor_config.json: .*{field}"):
        read_model_folder(tmp_path)


def test_older_names_of_bounds_count(tmp_path: Path) -> None:
    """`min_pixels` and `max_pixels` stand for what `size` says, as in the library."""
    settings = read_prefix_settings(write_model(tmp_path, min_pixels=1024, max_pixels=4096), CONFIG)
    assert settings is not None
    assert (settings.tower.min_pixels, settings.tower.max_pixels) == (1024, 4096)


MESSAGES = {
    "transformer_task": "feature-extraction",
    "modality_config": {
        "text": {"method": "forward", "method_output_name": "last_hidden_state"},
        "message": {
            "method": "forward",
            "method_output_name": "last_hidden_state",
            "format": "structured",
        },
    },
    "module_output_name": "token_embeddings",
    "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
}


def test_settings_of_sentence_transformers(tmp_path: Path) -> None:
    """Inputs that go through messages are read; others, other templates and other arguments are refused."""
    write_model(tmp_path)
    path = tmp_path / "sentence_bert_config.json"
    write_json(path, MESSAGES)
    write_json(
        tmp_path / "config_sentence_transformers.json",
        {"prompts": {"query": "Find it."}, "default_prompt_name": "query"},
    )
    folder = read_model_folder(tmp_path)
    assert folder.chat is not None
    assert "\nFind it.<|im_end|>" in folder.chat.prefix()
    for field, value in (
        ("modality_config", {"text": {"method": "forward"}}),
        ("processing_kwargs", {"chat_template": {"add_generation_prompt": False}}),
        ("module_output_name", "scores_of_others"),
    ):
        write_json(path, {**MESSAGES, field: value})
        with pytest.raises(FormatError, match=rf"sentence_bert_config.json: {field}"):
            read_model_folder(tmp_path)
    path.unlink()
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(FormatError, match="chat_template"):
        read_model_folder(tmp_path)


def test_a_folder_without_a_processor_takes_texts_only(tmp_path: Path) -> None:
    """Nothing is guessed of pictures; texts are read in messages all the same."""
    write_model(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    folder = read_model_folder(tmp_path)
    assert folder.pictures is None
    assert folder.chat is not None
    assert folder.chat.instruction == INSTRUCTION
