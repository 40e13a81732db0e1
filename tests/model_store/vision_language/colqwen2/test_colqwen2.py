"""ColQwen2 against transformers: from the bytes of files, and texts, to vectors that are compared one by one."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.assembly.library.embedder import Embedder
from nestvec.corpus.embedders import EngineEmbedder, OutputForm, TextOptions
from nestvec.corpus.job import CorpusJob
from nestvec.corpus.reading.sources import PictureFiles, find_sources
from nestvec.corpus.run import embed_corpus, scan_job
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.types import OutputKind, Truncation
from nestvec.engine.vectors.token_vectors import max_sim, pool_tokens
from nestvec.errors import (
    FormatError,
    InputError,
    InputTooLongError,
    SourceError,
    UnsupportedError,
)
from nestvec.export.architectures import export_graph
from nestvec.export.vision_language.decoder import COLQWEN2
from nestvec.export.vision_language.qwen2_config import text_fields
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.sources.hub_files import large_files
from nestvec.model_store.vision_language.colqwen2 import read_colqwen2_pictures
from nestvec.model_store.vision_language.picture_settings import read_prefix_settings

from tests.engine.pictures.forms import FORMS, colours, encoded
from tests.model_store.vision_language.colqwen2.inputs import MADE, TOKENS, VECTORS, input_of
from tests.model_store.vision_language.colqwen2.models import (
    CONFIG,
    INPUTS,
    QUERIES,
    TEXT,
    VISION,
    tensors,
    write_model,
)
from tests.model_store.vision_language.in_process import Embed
from tests.model_store.vision_language.models import CONFIG as CHAT_CONFIG
from tests.model_store.vision_language.models import IDS, PROCESSOR
from tests.model_store.vision_language.models import write_model as write_chat_model
from tests.support.tiny import write_json

TOLERANCE = 1e-5
WIDE = input_of("@wide")
QUERY = "a red apple"


def test_pixels_are_those_of_qwens_image_processor(tmp_path: Path) -> None:
    """The bytes of patches are those that Qwen3-VL's pictures are compared by, as both have one image processor."""
    for folder in ("col", "chat"):
        (tmp_path / folder).mkdir()
    ours = read_colqwen2_pictures(write_model(tmp_path / "col"), CONFIG)
    other = read_prefix_settings(write_chat_model(tmp_path / "chat"), CHAT_CONFIG)
    assert ours is not None
    assert other is not None
    for form in FORMS:
        image = decode_picture(FORMS[form](), PictureBounds())
        own, same = ours.tower.read(image), other.tower.read(image)
        assert own.grids == same.grids
        assert np.array_equal(own.patches, same.patches), form
        assert len(own.ids) == TOKENS[f"@{form}"]


def test_vectors_equal_those_of_transformers(tokens_of: Embed) -> None:
    """Queries and pictures, all in one call: vectors and tokens are transformers'."""
    result = tokens_of(*map(input_of, INPUTS))
    assert list(result.rows) == list(result.input_tokens) == [TOKENS[name] for name in INPUTS]
    for name, rows in zip(INPUTS, result.by_input(result.vectors), strict=True):
        assert np.abs(rows - VECTORS[name]).max() < TOLERANCE, name


@pytest.mark.parametrize("name", [QUERY, "", "@wide", "@exif-6"])
def test_an_input_alone_equals_it_among_others(tokens_of: Embed, name: str) -> None:
    """What an input is batched with changes nothing of its vectors."""
    assert np.abs(tokens_of(input_of(name)).vectors - VECTORS[name]).max() < TOLERANCE


def test_scores_are_the_processors(tokens_of: Embed, colqwen2: Embedder) -> None:
    """MaxSim of the vectors given is `score_retrieval`; the library ranks pages by it."""
    pages = [name for name in INPUTS if name.startswith("@")]
    result = tokens_of(*map(input_of, INPUTS))
    rows = dict(zip(INPUTS, result.by_input(result.vectors), strict=True))
    for query, wanted in zip(QUERIES, MADE["scores"], strict=True):
        scores = max_sim(rows[query], [rows[page] for page in pages])
        np.testing.assert_allclose(scores, wanted, rtol=TOLERANCE)
    files = [FORMS[page[1:]]() for page in pages]
    ranked = colqwen2.rerank(QUERY, files, top_n=3)
    wanted = np.array(MADE["scores"][QUERIES.index(QUERY)])
    assert [each.index for each in ranked] == np.argsort(-wanted)[:3].tolist()


def test_a_text_is_a_query_unless_it_is_said_to_be_a_document(tokens_of: Embed) -> None:
    """A picture is read in its own prompt whatever its call says, a document of text in none."""
    for asked in ({"prompt_role": "query"}, {"prompt_name": "query"}):
        result = tokens_of(QUERY, WIDE, **asked)
        texts, pictures = result.by_input(result.vectors)
        assert np.abs(texts - VECTORS[QUERY]).max() < TOLERANCE
        assert np.abs(pictures - VECTORS["@wide"]).max() < TOLERANCE
        assert result.instruction_tokens == (len("Query: "), 0)
    plain = tokens_of(QUERY, WIDE, prompt_role="passage")
    assert plain.rows == (len(QUERY), TOKENS["@wide"])
    assert np.abs(plain.vectors[len(QUERY) :] - VECTORS["@wide"]).max() < TOLERANCE


def test_placeholders_in_texts_are_no_pictures(tokens_of: Embed) -> None:
    """Whoever spells a picture's tokens gets those of a text, and moves no picture of the same call."""
    spelt = "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"
    result = tokens_of(spelt, WIDE)
    assert result.rows == (TOKENS[""] + 4, TOKENS["@wide"])
    assert np.abs(result.vectors[TOKENS[""] + 4 :] - VECTORS["@wide"]).max() < TOLERANCE


def test_a_limit_cuts_the_text_of_a_query_only(tokens_of: Embed) -> None:
    """What follows a query stays; a page is never cut, and a limit below the frame is refused."""
    limit = TOKENS["x"] + 3
    cut = tokens_of("abcdefgh...stuvwxyz", truncate=Truncation.END, max_tokens=limit)
    assert (cut.rows, cut.is_truncated) == ((limit,), (True,))
    assert np.abs(cut.vectors - tokens_of("abcd").vectors).max() < TOLERANCE
    with pytest.raises(InputTooLongError) as caught:
        tokens_of("a", WIDE, truncate=Truncation.END, max_tokens=TOKENS["@wide"] - 1)
    assert caught.value.input_index == 1
    with pytest.raises(InputError, match="at least 11"):
        tokens_of(QUERY, truncate=Truncation.END, max_tokens=10)


def test_a_folder_of_pages_is_embedded(colqwen2: Embedder, tmp_path: Path) -> None:
    """`nestvec embed --pictures --output multi-vector`: pages by their patches, texts as documents."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "wide.png").write_bytes(FORMS["wide"]())
    (tmp_path / "pages" / "notes.txt").write_text(QUERY)
    target = tmp_path / "out.jsonl"
    sources = find_sources([str(tmp_path / "pages")], pictures=PictureFiles.ALL)
    job = CorpusJob(sources, target, options=TextOptions(form=OutputForm.MULTI_VECTOR))
    scan_job(job)
    embedder = EngineEmbedder(colqwen2._service)
    colqwen2._run(embed_corpus(embedder, job, lambda *_: None))
    rows = [json.loads(line)["embedding"] for line in target.read_text().splitlines()]
    assert [len(row) for row in rows] == [len(QUERY), TOKENS["@wide"]]
    assert np.abs(np.array(rows[1]) - VECTORS["@wide"]).max() < TOLERANCE


def test_like_patches_are_merged(tokens_of: Embed) -> None:
    """`pool_factor` merges a page's vectors as it does a text's."""
    merged = tokens_of(WIDE, pool_factor=3)
    wanted = pool_tokens(VECTORS["@wide"], 3)
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.abs(merged.vectors - wanted).max() < TOLERANCE


def test_hostile_inputs_are_refused_where_they_stand(tokens_of: Embed) -> None:
    """Damaged files, lines of pixels, texts beside pictures, and outputs that the model does not have."""
    damaged = Picture(FORMS["png"]()[:90])
    line = Picture(encoded(colours(201, 1), "PNG"))
    for broken in (damaged, line, MixedInput((QUERY, WIDE)), MixedInput((WIDE, WIDE))):
        with pytest.raises(InputError) as caught:
            tokens_of(QUERY, WIDE, broken)
        assert caught.value.input_index == 2
    assert np.isfinite(tokens_of(Picture(encoded(colours(200, 1), "PNG"))).vectors).all()
    for inputs in ((QUERY,), (WIDE,)):
        with pytest.raises(UnsupportedError, match="late-interaction model"):
            tokens_of(*inputs, kind=OutputKind.DENSE)
    with pytest.raises(InputError, match="no token"):
        tokens_of("", prompt_role="passage")


def test_a_chat_models_pictures_have_token_vectors_too(embed: Embed) -> None:
    """Of Qwen3-VL every token of messages and pictures has one; the last is the input's own vector."""
    both = MixedInput(("one", WIDE, "two"))
    dense = embed(both, WIDE, "text")
    tokens = embed(both, WIDE, "text", kind=OutputKind.TOKENS)
    assert tokens.rows == tokens.input_tokens == dense.input_tokens
    last = [rows[-1] for rows in tokens.by_input(tokens.vectors)]
    assert np.abs(np.stack(last) - dense.vectors).max() < TOLERANCE
    joint = embed("text", WIDE, kind=OutputKind.DENSE_TOKENS).by_kind
    assert np.abs(joint[OutputKind.DENSE].vectors - dense.vectors[[2, 1]]).max() < TOLERANCE
    assert joint[OutputKind.TOKENS].rows == tokens.rows[:0:-1]


def _renamed(prefixes: Mapping[str, str]) -> dict[str, Any]:
    """Return the weights under other names, without the head that no vector needs."""
    named = {name: tensor for name, tensor in tensors().items() if "lm_head" not in name}
    for old, new in prefixes.items():
        named = {name.replace(old, new): tensor for name, tensor in named.items()}
    return named


def test_names_of_tensors_in_other_versions(tmp_path: Path) -> None:
    """Checkpoints as version 5 writes them, and as those before 4.52 did, make the same graphs."""
    layouts = [
        {},
        {"vlm.model.": "vlm."},
        {"vlm.model.language_model.": "vlm.model.", "vlm.model.visual.": "vlm.visual."},
    ]
    made = []
    for number, prefixes in enumerate(layouts):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_model(folder, weights=_renamed(prefixes))
        read = read_model_folder(folder)
        assert read.pictures is not None
        for name in ("texts", "pictures"):
            (folder / name).mkdir()
        export_graph(folder, CONFIG, folder / "texts" / "model.onnx")
        read.pictures.export(folder, CONFIG, folder / "pictures" / "model.onnx")
        assert read.head.graph_head() is not None
        files = sorted(folder.glob("*/*"))
        made.append([(file.relative_to(folder), file.read_bytes()) for file in files])
    assert made[0] == made[1] == made[2]


def test_flat_and_newer_fields_say_the_same() -> None:
    """The decoder's fields among the model's, as on the Hub, and `rope_parameters` of version 5."""
    vlm = CONFIG["vlm_config"]
    plain = {name: value for name, value in vlm.items() if name != "text_config"}
    flat = {**CONFIG, "vlm_config": {**plain, **TEXT}}
    rope = {"rope_type": "default", "rope_theta": 5000.0, "mrope_section": [2, 3, 3]}
    text = {name: value for name, value in TEXT.items() if not name.startswith("rope")}
    newer = {**CONFIG, "vlm_config": {**plain, "text_config": {**text, "rope_parameters": rope}}}
    read = [COLQWEN2.dimensions(config) for config in (CONFIG, flat, newer)]
    assert read[0] == read[1] == read[2]
    fields = [text_fields(config) for config in (CONFIG, flat, newer)]
    axes = [COLQWEN2.axis_of_pairs(each, 16) for each in fields]
    assert axes == [(0, 0, 1, 1, 1, 2, 2, 2)] * 3
    frequencies = [
        COLQWEN2.read(config).frequencies[False].values for config in (CONFIG, flat, newer)
    ]
    assert all(np.array_equal(each, frequencies[0]) for each in frequencies)


def _in_vlm(**fields: Any) -> dict[str, Any]:
    return {**CONFIG, "vlm_config": {**CONFIG["vlm_config"], **fields}}


def _in_text(**fields: Any) -> dict[str, Any]:
    return _in_vlm(text_config={**TEXT, **fields})


def _in_vision(**fields: Any) -> dict[str, Any]:
    return _in_vlm(vision_config={**VISION, **fields})


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**CONFIG, "vlm_config": None}, "vlm_config"),
        (_in_vlm(model_type="qwen2_5_vl"), "vlm_config.model_type"),
        (_in_vlm(image_token_id=IDS["<|video_pad|>"]), "image_token_id"),
        (_in_vlm(vision_config=[]), "vlm_config.vision_config"),
        (_in_text(use_sliding_window=True), "use_sliding_window"),
        (_in_text(head_dim=8), "head_dim"),
        (_in_text(num_attention_heads=5), "num_attention_heads"),
        (_in_text(rope_scaling={"mrope_section": [2, 3, 4]}), "mrope_section"),
        (_in_text(rope_scaling={"mrope_section": "all"}), "mrope_section"),
        (_in_text(rope_scaling={"type": 3}), "rope_type"),
        (_in_text(rope_scaling={"mrope_interleaved": True}), "mrope_interleaved"),
        (_in_text(pruned_heads={"0": [1]}), "vlm_config.text_config.pruned_heads"),
        (_in_vision(in_channels=1), "in_channels"),
        (_in_vision(num_heads=4), "num_heads"),
        (_in_vision(hidden_size=32), "hidden_size"),
        (_in_vision(mlp_ratio="4"), "mlp_ratio"),
        ({**CONFIG, "embedding_dim": 0}, "embedding_dim"),
    ],
)
def test_what_no_graph_has_is_refused(tmp_path: Path, config: Any, named: str) -> None:
    """A field that is not computed here is refused by its name."""
    write_model(tmp_path, copy.deepcopy(config))
    with pytest.raises(FormatError, match=named):
        read_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("query_prefix", "", "query_prefix"),
        ("query_prefix", 3, "query_prefix"),
        ("visual_prompt_prefix", "Describe the image.", "<|image_pad|> once"),
        ("visual_prompt_prefix", "<|image_pad|> and <|image_pad|>", "<|image_pad|> once"),
        ("visual_prompt_prefix", ["<|image_pad|>"], "visual_prompt_prefix"),
    ],
)
def test_strange_prompts_are_refused(tmp_path: Path, field: str, value: object, named: str) -> None:
    """A processor's prompt is a text, with the picture's token in it once where one stands for a picture."""
    write_model(tmp_path, processor={"processor_class": "ColQwen2Processor", field: value})
    with pytest.raises(FormatError, match=named.replace("|", r"\|")):
        read_model_folder(tmp_path)


def _without_padding(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"model_max_length": 400})


def _chained(folder: Path) -> None:
    kinds = {"Transformer": "", "Dense": "1_Dense"}
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": path}
        for kind, path in kinds.items()
    ]
    (folder / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize(
    ("change", "named"), [(_without_padding, "pad_token"), (_chained, "'Dense'")]
)
def test_what_queries_and_vectors_need_is_named(
    tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    """Queries end with the padding token, and nothing stands behind the projection."""
    change(write_model(tmp_path))
    with pytest.raises(FormatError, match=named):
        read_model_folder(tmp_path)


def test_an_adapter_alone_is_no_model(tmp_path: Path) -> None:
    """Whoever names a LoRA adapter is told what to name."""
    write_json(tmp_path / "adapter_config.json", {"peft_type": "LORA"})
    with pytest.raises(FormatError, match=r"adapter_config\.json, and no model: .* -hf"):
        read_model_folder(tmp_path)
    with pytest.raises(SourceError, match=r"colqwen2-v1\.0: adapter_config\.json, and no model"):
        large_files("colqwen2-v1.0", tmp_path, ["adapter_config.json"], reads_pickles=True)


def test_prompts_of_the_folder_count(tmp_path: Path) -> None:
    """Other prompts make another space, and so do other bounds of pixels."""
    spaces = set()
    cases: list[tuple[dict[str, Any] | None, dict[str, Any]]] = [
        (None, {}),
        ({"query_prefix": "Question: "}, {}),
        ({"visual_prompt_prefix": "<|image_pad|>"}, {}),
        (None, {"max_pixels": 4096}),
    ]
    for number, (processor, fields) in enumerate(cases):
        path = tmp_path / str(number)
        path.mkdir()
        folder = read_model_folder(write_model(path, processor=processor, **fields))
        spaces.add(space_fingerprint(folder, HashCache(tmp_path / "hashes.json")))
        assert folder.default_prompt == "query"
        assert folder.prompts["query"] == (processor or {}).get("query_prefix", "Query: ")
    assert len(spaces) == 4


def test_bounds_of_pixels_in_old_and_new_files(tmp_path: Path) -> None:
    """`size` of the first files has other names, which count for nothing beside the fields; version 5 has one file."""
    old = write_model(
        tmp_path, size={"min_pixels": 1, "max_pixels": 2}, min_pixels=256, max_pixels=2048
    )
    settings = read_colqwen2_pictures(old, CONFIG)
    assert settings is not None
    assert (settings.tower.min_pixels, settings.tower.max_pixels) == (256, 2048)
    (tmp_path / "preprocessor_config.json").unlink()
    assert read_model_folder(tmp_path).pictures is None
    write_json(tmp_path / "processor_config.json", {"image_processor": PROCESSOR})
    newer = read_colqwen2_pictures(tmp_path, CONFIG)
    assert newer is not None
    assert newer.tower == settings.tower
