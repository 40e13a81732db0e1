"""Folders of ColPali as either version of transformers writes them, and what of them is refused by its name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.export.architectures import export_graph
from nestvec.export.vision_language.colpali import export_page_graph
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.folder.model_folder import ModelFolder, read_model_folder
from nestvec.model_store.vision_language.colpali import read_colpali_pictures
from safetensors.numpy import save_file

from tests.model_store.vision_language.colpali.models import (
    CONFIG,
    LAYOUTS,
    PROCESSOR,
    TEXT,
    VISION,
    tensors,
    write_model,
)
from tests.support.tiny import write_json

VLM = CONFIG["vlm_config"]


def graphs(folder: Path, out: Path) -> dict[str, bytes]:
    """Export both graphs of a folder, and return the files."""
    read = read_model_folder(folder)
    assert read.pictures is not None
    out.mkdir()
    export_graph(folder, read.config, out / "model.onnx")
    export_page_graph(folder, read.config, read.pictures.scale, out / "pictures.onnx")
    return {file.name: file.read_bytes() for file in out.iterdir()}


def _as_written(name: str) -> str:
    return name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_by_other_names(tmp_path: Path, layout: str) -> None:
    """Names of either version, in memory or in files, make the same graphs; what is not asked for is not read."""
    made, layouts = [], (LAYOUTS[layout], _as_written)
    for number, renamed in enumerate(layouts):
        weights = {renamed(name): each for name, each in tensors().items()}
        weights[renamed("vlm.language_model.lm_head.weight")] = np.zeros((1, 1), np.float32)
        folder = tmp_path / str(number)
        folder.mkdir()
        made.append(graphs(write_model(folder, weights=weights), tmp_path / f"out{number}"))
    assert made[0] == made[1]


def _as_version_5(folder: Path) -> None:
    """Write the folder again as transformers 5 does, in shards of bfloat16."""
    text = {name: value for name, value in TEXT.items() if name != "rope_theta"}
    rope = {"rope_theta": TEXT["rope_theta"], "rope_type": "default"}
    text |= {"rope_parameters": rope, "use_bidirectional_attention": True}
    config = {**CONFIG, "vlm_config": {**VLM, "text_config": text, "tie_word_embeddings": True}}
    write_json(folder / "config.json", {**config, "transformers_version": "5.24.0"})
    (folder / "preprocessor_config.json").unlink()
    write_json(
        folder / "processor_config.json",
        {
            "image_processor": {**PROCESSOR, "do_convert_rgb": True},
            "processor_class": "ColPaliProcessor",
            "query_prefix": "Question: ",
            "visual_prompt_prefix": "Describe the image.",
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "backend": "tokenizers",
            "tokenizer_class": "TokenizersBackend",
            "bos_token": "<bos>",
            "pad_token": "<pad>",
            "extra_special_tokens": ["<image>"],
        },
    )
    (folder / "model.safetensors").unlink()
    shards: dict[str, dict[str, Any]] = {}
    for number, (name, values) in enumerate(tensors().items()):
        file = f"model-0000{1 + number % 3}-of-00003.safetensors"
        shards.setdefault(file, {})[name] = values.astype(ml_dtypes.bfloat16)
    for file, parts in shards.items():
        save_file(parts, folder / file)
    names = {name: file for file, parts in shards.items() for name in parts}
    write_json(folder / "model.safetensors.index.json", {"weight_map": names})


def _tokens(folder: ModelFolder) -> object:
    assert folder.pictures is not None
    return folder.head.late_interaction, folder.head.prompts, folder.pictures.tower


def test_a_folder_of_version_5(tmp_path: Path) -> None:
    """One file for the whole processor, rotation in its own object, shards of bfloat16: the same graphs and prompts."""
    folders = [tmp_path / name for name in ("old", "new")]
    for folder in folders:
        folder.mkdir()
        rounded = {n: v.astype(ml_dtypes.bfloat16).astype(np.float32) for n, v in tensors().items()}
        write_model(folder, weights=rounded)
    _as_version_5(folders[1])
    old, new = map(read_model_folder, folders)
    assert _tokens(old) == _tokens(new)
    ids = [each.open_tokenizer().library.encode("a<bos>b").ids for each in (old, new)]
    assert ids[0] == ids[1]
    assert graphs(folders[0], tmp_path / "a") == graphs(folders[1], tmp_path / "b")


def test_prompts_of_the_folder_count(tmp_path: Path) -> None:
    """Other prompts, and other ways to resize, make another space; an empty prompt is none."""
    spaces = set()
    cases: tuple[tuple[dict[str, Any] | None, dict[str, Any]], ...] = (
        (None, {}),
        ({"query_prefix": ""}, {}),
        ({"visual_prompt_prefix": ""}, {}),
        (None, {"resample": 2}),
    )
    for number, (processor, fields) in enumerate(cases):
        path = tmp_path / str(number)
        path.mkdir()
        folder = read_model_folder(write_model(path, processor=processor, **fields))
        spaces.add(space_fingerprint(folder, HashCache(tmp_path / "hashes.json")))
        assert folder.prompts["query"] == (processor or {}).get("query_prefix", "Question: ")
    assert len(spaces) == 4


def test_what_a_folder_leaves_out(tmp_path: Path) -> None:
    """Fields with defaults of their classes may be missing; without an image processor's file there are texts only."""
    write_model(tmp_path, image_seq_length=None, image_mean=None)
    for name in ("tokenizer_config.json", "processor_config.json"):
        (tmp_path / name).unlink(missing_ok=True)
    settings = read_colpali_pictures(tmp_path, CONFIG)
    assert settings is not None
    assert (settings.tower.square.tokens, settings.scale.mean) == (16, (0.5, 0.5, 0.5))
    assert read_model_folder(tmp_path).prompts["query"] == "Question: "
    (tmp_path / "preprocessor_config.json").unlink()
    assert read_model_folder(tmp_path).pictures is None


def _in_vlm(part: str, **fields: Any) -> dict[str, Any]:
    own = {"text_config": TEXT, "vision_config": VISION}[part]
    return {**CONFIG, "vlm_config": {**VLM, part: {**own, **fields}}}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**CONFIG, "vlm_config": None}, "vlm_config"),
        ({**CONFIG, "vlm_config": {**VLM, "model_type": "qwen2_vl"}}, "model_type"),
        ({**CONFIG, "vlm_config": {**VLM, "projection_dim": 16}}, "projection_dim"),
        ({**CONFIG, "vlm_config": {**VLM, "image_token_index": 7}}, "image_token_index"),
        ({**CONFIG, "vlm_config": {**VLM, "vision_config": None}}, "vision_config"),
        ({**CONFIG, "embedding_dim": 0}, "embedding_dim"),
        (_in_vlm("text_config", model_type="gemma2"), "model_type"),
        (_in_vlm("text_config", hidden_act="gelu"), "hidden_act"),
        (_in_vlm("text_config", attention_bias=True), "attention_bias"),
        (_in_vlm("text_config", num_key_value_heads=3), "num_key_value_heads"),
        (_in_vlm("text_config", pruned_heads={"0": [1]}), "text_config.pruned_heads"),
        (_in_vlm("vision_config", num_channels=1), "num_channels"),
        (_in_vlm("vision_config", patch_size=31), "patch_size"),
        (_in_vlm("vision_config", model_type="clip_vision_model"), "model_type"),
    ],
)
def test_what_no_graph_has_is_refused(tmp_path: Path, config: Any, named: str) -> None:
    """A field that is not computed here is refused by its name."""
    write_model(tmp_path, config)
    with pytest.raises(FormatError, match=named):
        read_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", {"height": 28, "width": 28}),
        ("size", {"height": 30, "width": 28}),
        ("image_seq_length", 1024),
        ("do_resize", False),
        ("do_pad", True),
        ("resample", 9),
        ("image_std", [0.5, 0, 0.5]),
        ("image_processor_type", "CLIPImageProcessor"),
    ],
)
def test_what_is_not_done_to_pictures_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    """A field that would change pixels is honoured or refused by its name, never ignored."""
    write_model(tmp_path, **{field: value})
    with pytest.raises(FormatError, match=rf"preprocessor_config.json: .*{field}"):
        read_model_folder(tmp_path)


def _splits(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"split_special_tokens": True})


def _is_unknown(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"pad_token": "<nothing>"})


def _chained(folder: Path) -> None:
    kinds = {"Transformer": "", "Dense": "1_Dense"}
    modules = [{"type": f"sentence_transformers.models.{k}", "path": p} for k, p in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))


def _spelt(folder: Path) -> None:
    write_json(folder / "processor_config.json", {"visual_prompt_prefix": "<image><bos>Describe"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_splits, "split_special_tokens"),
        (_is_unknown, "<nothing>"),
        (_chained, "'Dense'"),
        (_spelt, "visual_prompt_prefix"),
    ],
)
def test_what_prompts_need_is_named(
    tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    """Queries end with the padding token, nothing stands behind the projection, and a picture is written once."""
    change(write_model(tmp_path))
    with pytest.raises(FormatError, match=named):
        read_model_folder(tmp_path)


def test_a_missing_projection_is_named(tmp_path: Path) -> None:
    """Of a checkpoint of PaliGemma alone, which is no ColPali, the tensor that it lacks is told."""
    weights = {n: each for n, each in tensors().items() if not n.startswith("embedding_proj")}
    folder = read_model_folder(write_model(tmp_path, weights=weights))
    with pytest.raises(FormatError, match="embedding_proj_layer"):
        folder.head.graph_head()
