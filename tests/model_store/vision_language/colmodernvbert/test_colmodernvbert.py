"""ColModernVBERT against transformers: from the bytes of files, and texts, to vectors that are compared one by one."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.pictures.tiles import TILE, WHOLE, TiledPrefix
from nestvec.engine.types import Truncation
from nestvec.errors import FormatError, InputError, InputTooLongError
from nestvec.export.architectures import ExportOptions, export_graph
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.vision_language.colmodernvbert import SUFFIX_TOKENS

from tests.engine.pictures.forms import FORMS, colours, encoded
from tests.model_store.vision_language.colmodernvbert.inputs import (
    EXPECTED,
    IDS,
    MADE,
    PICTURES,
    input_of,
)
from tests.model_store.vision_language.colmodernvbert.models import (
    CONFIG,
    DOCUMENTS,
    PROCESSOR,
    QUERIES,
    tensors,
    write_model,
)
from tests.model_store.vision_language.in_process import Embed
from tests.support.tiny import write_json

TOLERANCE = 1e-5


def tower_of(folder: Path) -> TiledPrefix:
    """Return how a folder's model takes pictures."""
    settings = read_model_folder(folder).pictures
    assert settings is not None
    assert isinstance(settings.tower, TiledPrefix)
    return settings.tower


def test_tiles_equal_those_of_transformers(tiled_folder: Path, tmp_path: Path) -> None:
    """The bytes of tiles in their order, and their number, are those of the image processor on Pillow."""
    tower = tower_of(tiled_folder / "model")
    for form, (count, digest) in MADE["pixels"].items():
        image = decode_picture(FORMS[form](), PictureBounds())
        tiles, shape = tower.tiles(image)
        assert hashlib.sha256(tiles.tobytes()).hexdigest() == digest, form
        assert len(tiles) == count == 1 + shape[0] * shape[1]
    whole = tower_of(write_model(tmp_path, do_image_splitting=False))
    for form, (_, digest) in MADE["whole"].items():
        tiles, shape = whole.tiles(decode_picture(FORMS[form](), PictureBounds()))
        assert shape == WHOLE
        assert hashlib.sha256(tiles.tobytes()).hexdigest() == digest, form


def test_a_picture_is_written_as_the_processor_does(tiled_folder: Path) -> None:
    """Tokens around and between tiles, those of rows and columns that have none of their own too, are transformers'."""
    tower = tower_of(tiled_folder / "model")
    for name in DOCUMENTS:
        image = decode_picture(FORMS[name](), PictureBounds())
        read = tower.read(image)
        assert np.where(read.ids < 0, TILE, read.ids).tolist() == IDS[name], name
        assert tower.tokens_of(*image.size) == IDS[name].count(TILE) == (read.ids < 0).sum()
        assert tower.pixel_bytes_of(*image.size) == read.patches.nbytes
        assert sum(rows * columns for rows, columns, _ in read.grids) == len(read.patches)


def test_vectors_equal_those_of_transformers(tokens_of: Embed) -> None:
    """Queries and pictures of several numbers of tiles, all in one call: vectors and tokens are transformers'."""
    result = tokens_of(*map(input_of, EXPECTED))
    assert list(result.rows) == list(result.input_tokens) == [len(v) for v in EXPECTED.values()]
    for name, rows in zip(EXPECTED, result.by_input(result.vectors), strict=True):
        assert np.abs(rows - EXPECTED[name]).max() < TOLERANCE, name


@pytest.mark.parametrize("name", [QUERIES[0], QUERIES[-1], "wide", "webp"])
def test_an_input_alone_equals_it_among_others(tokens_of: Embed, name: str) -> None:
    """What an input is batched with changes nothing of its vectors."""
    assert np.abs(tokens_of(input_of(name)).vectors - EXPECTED[name]).max() < TOLERANCE


def test_texts_of_either_role(tokens_of: Embed) -> None:
    """A query has tokens behind it, a document none; of both the text is cut, and what stands behind it stays."""
    text = QUERIES[1]
    document = tokens_of(text, prompt_role="document").rows[0]
    assert tokens_of(text, prompt_role="query").rows == (document + SUFFIX_TOKENS,)
    longest = tokens_of(QUERIES[-1], max_tokens=60, truncate=Truncation.END)
    assert (longest.rows, longest.is_truncated) == ((60,), (True,))
    whole = len(EXPECTED[QUERIES[-1]])
    kept = QUERIES[-1][: 60 - (whole - len(QUERIES[-1]))]
    assert np.abs(longest.vectors - tokens_of(kept).vectors).max() < TOLERANCE


def test_placeholders_in_texts_are_no_pictures(tokens_of: Embed) -> None:
    """Whoever spells a picture's tokens gets the vectors of a text, and moves no picture of the same batch."""
    spelt = "<fake_token_around_image><global-img><image><image><image><image>"
    alone = tokens_of(spelt)
    assert alone.rows == (2 + 6 + SUFFIX_TOKENS,)
    both = tokens_of(spelt, PICTURES["wide"])
    rows = list(both.by_input(both.vectors))
    assert np.abs(rows[0] - alone.vectors).max() < TOLERANCE
    assert np.abs(rows[1] - EXPECTED["wide"]).max() < TOLERANCE


def test_pictures_are_never_cut(tokens_of: Embed) -> None:
    """A page beyond the limit on tokens is refused where it stands, however texts are truncated."""
    whole = len(IDS["wide"])
    assert tokens_of(PICTURES["wide"], max_tokens=whole).rows == (whole,)
    for truncate in (Truncation.END, Truncation.START, Truncation.ERROR):
        with pytest.raises(InputTooLongError) as caught:
            tokens_of("a", PICTURES["wide"], truncate=truncate, max_tokens=whole - 1)
        assert caught.value.input_index == 1


def test_hostile_pictures_are_refused_where_they_stand(tokens_of: Embed) -> None:
    """A damaged file, a line of pixels, and a picture beside a text are the caller's error; the narrowest is read."""
    damaged = Picture(FORMS["png"]()[:90])
    line = Picture(encoded(colours(201, 1), "PNG"))
    beside = MixedInput(("b", PICTURES["wide"]))
    for broken in (damaged, line, beside):
        with pytest.raises(InputError) as caught:
            tokens_of("a", broken)
        assert caught.value.input_index == 1
    for width, height in ((200, 1), (1, 200), (1, 1)):
        narrow = tokens_of(Picture(encoded(colours(width, height), "PNG")))
        assert np.isfinite(narrow.vectors).all()


@pytest.mark.parametrize("model_type", ["colmodernvbert", "modernvbert"])
def test_the_authors_own_names_are_read(tmp_path: Path, model_type: str) -> None:
    """A checkpoint of colpali-engine's, with its names and a table of tokens in two, gives the same graphs."""
    own, renamed = tmp_path / "own", tmp_path / "renamed"
    for folder in (own, renamed):
        folder.mkdir()
    write_model(own)
    vlm = CONFIG["vlm_config"]
    flat = {**CONFIG, **{name: value for name, value in vlm.items() if name != "model_type"}}
    del flat["vlm_config"]
    flat |= {"model_type": model_type, "architectures": ["ColModernVBert"]}
    write_model(renamed, as_authors_name_them(), flat)
    wanted, found = (graphs_of(folder) for folder in (own, renamed))
    assert wanted == found


def as_authors_name_them() -> dict[str, Any]:
    """Return the tiny model's weights by the names of colpali-engine's."""
    table = "model.text_model.embeddings.tok_embeddings."
    renames = {
        "embedding_proj_layer.": "custom_text_proj.",
        "vlm.vision_model.": "model.vision_model.vision_model.",
        "vlm.connector.modality_projection.": "model.connector.modality_projection.proj.",
        "vlm.": "model.",
    }
    found = {}
    for name, tensor in tensors().items():
        start = next(each for each in renames if name.startswith(each))
        found[renames[start] + name.removeprefix(start)] = tensor
    whole = found.pop(f"{table}weight")
    found[f"{table}weight"] = whole[:-9].copy()
    found[f"{table}additional_embedding.weight"] = whole[-9:].copy()
    return found


def graphs_of(folder: Path) -> list[bytes]:
    """Return the weights of both graphs of a folder's model."""
    read = read_model_folder(folder)
    assert read.pictures is not None
    out = folder / "graphs"
    out.mkdir()
    options = ExportOptions(head=read.head.graph_head())
    export_graph(read.path, read.config, out / "model.onnx", options)
    read.pictures.export(read.path, read.config, out / "pictures.onnx")
    return [file.read_bytes() for file in sorted(out.glob("*.bin"))]


def _with(part: str, **fields: Any) -> dict[str, Any]:
    vlm = CONFIG["vlm_config"]
    if part == "vlm_config":
        return {**CONFIG, "vlm_config": {**vlm, **fields}}
    return {**CONFIG, "vlm_config": {**vlm, part: {**vlm[part], **fields}}}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**CONFIG, "vlm_config": [1]}, "vlm_config"),
        ({**CONFIG, "embedding_dim": 0}, "embedding_dim"),
        ({**CONFIG, "embedding_dim": 23}, "embedding_proj_layer"),
        (_with("vlm_config", model_type="idefics3"), "model_type"),
        (_with("vlm_config", pixel_shuffle_factor=3), "pixel_shuffle_factor"),
        (_with("vlm_config", image_token_id=7), "image_token_id"),
        (_with("vlm_config", text_config=None), "text_config"),
        (_with("text_config", model_type="bert"), "text_config"),
        (_with("text_config", pruned_heads={"0": [1]}), "vlm_config.text_config.pruned_heads"),
        (_with("vision_config", model_type="clip_vision_model"), "vision_config"),
        (_with("vision_config", num_channels=1), "num_channels"),
        (_with("vision_config", image_size=24), "max_image_size"),
        (_with("vision_config", patch_size=8), "tokens a tile"),
    ],
)
def test_what_no_graph_has_is_refused(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    """A field that is not computed here, or that the folder's other files contradict, is refused by its name."""
    write_model(tmp_path, config=config)
    with pytest.raises(FormatError, match=named):
        read_model_folder(tmp_path).head.graph_head()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", {"height": 74, "width": 74}),
        ("size", {"longest_edge": 75}),
        ("size", {"longest_edge": 16 * 13}),
        ("max_image_size", {"longest_edge": 32}),
        ("max_image_size", 16),
        ("do_resize", False),
        ("do_image_splitting", 1),
        ("do_convert_rgb", "yes"),
        ("resample", 9),
        ("image_std", [0.5, 0.5, 0]),
        ("image_processor_type", "Qwen2VLImageProcessor"),
    ],
)
def test_what_is_not_done_to_pictures_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    """A field that would change pixels is honoured or refused by its name, never ignored."""
    write_model(tmp_path, **{field: value})
    with pytest.raises(FormatError, match=rf"preprocessor_config.json: .*{field}"):
        read_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_seq_len", 64),
        ("image_seq_len", None),
        ("visual_prompt_prefix", "Describe the image."),
        ("visual_prompt_prefix", "<image> <image>"),
        ("visual_prompt_prefix", [1]),
        ("query_prefix", "a" * 10_001),
    ],
)
def test_prompts_that_are_none_are_refused(tmp_path: Path, field: str, value: Any) -> None:
    """What the processor writes around pictures and before queries must be a text that has what it needs."""
    write_model(tmp_path)
    write_json(tmp_path / "processor_config.json", {**PROCESSOR, field: value})
    with pytest.raises(FormatError, match=rf"processor_config.json: {field}"):
        read_model_folder(tmp_path)


def test_prompts_of_the_folder_are_read(tmp_path: Path) -> None:
    """Its own prompts stand for the class's, and make another space; an empty one stands for none."""
    plain = read_model_folder(write_model(tmp_path))
    said = {"visual_prompt_prefix": "See:<image>", "query_prefix": "Query: "}
    write_json(tmp_path / "processor_config.json", {**PROCESSOR, **said})
    own = read_model_folder(tmp_path)
    assert own.pictures is not None
    assert plain.pictures is not None
    assert own.pictures.summary() != plain.pictures.summary()
    assert own.prompts["query"] == "Query: "
    write_json(tmp_path / "processor_config.json", {**PROCESSOR, **dict.fromkeys(said, "")})
    empty = read_model_folder(tmp_path)
    assert empty.pictures == plain.pictures
    assert empty.prompts == plain.prompts


def test_a_folder_without_its_tokens_is_refused(tmp_path: Path) -> None:
    """A vocabulary without a token that pictures or queries are written by is refused by the token's name."""
    write_model(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("<end_of_utterance>", "<end>"))
    with pytest.raises(FormatError, match="end_of_utterance"):
        read_model_folder(tmp_path)
