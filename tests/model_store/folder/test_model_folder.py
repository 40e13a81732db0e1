"""What a folder's files say, and what is an error instead of a guess."""

import json
from pathlib import Path
from typing import Any

import pytest
from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.model_store.folder.model_folder import read_model_folder

from tests.backends.test_onnx import write_padded
from tests.support.tiny import CONFIG, write_json, write_tiny_bert


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a tiny BERT that the test may spoil."""
    return write_tiny_bert(tmp_path / "model")


def test_a_whole_folder_is_understood(folder: Path) -> None:
    """Lengths, pooling, prompts and layout come from its files."""
    model = read_model_folder(folder)
    assert model.layout is Layout.PACKED
    assert (model.architecture, model.head.pooling, model.max_tokens) == ("bert", "mean", 24)
    assert (model.head.hidden_size, model.vocabulary_size) == (32, 128)
    assert model.prompts == {"query": "query : "}
    assert model.is_normalized
    assert model.pools_prompt


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ({"pooling_mode_weightedmean_tokens": True}, "weighted_mean"),
        ({"pooling_mode_lasttoken": True}, "last_token"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls", "embedding_dimension": 32}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last_token"),
        ({"pooling_mode": "weightedmean"}, "weighted_mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "cls+mean"),
        ({"pooling_mode_mean_tokens": False}, "mean"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode": ["mean", "cls"]}, "mean+cls"),
    ],
)
def test_both_schemas_of_pooling(folder: Path, config: dict[str, Any], pooling: str) -> None:
    """The old booleans and the newer compact string are both read."""
    write_json(folder / "1_Pooling/config.json", config)
    assert read_model_folder(folder).head.pooling == pooling


def test_prompts_that_pooling_leaves_out(folder: Path) -> None:
    """`include_prompt: false` is honoured, and the default prompt is found."""
    write_json(folder / "1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "q: "}, "default_prompt_name": "query"},
    )
    model = read_model_folder(folder)
    assert not model.pools_prompt
    assert model.default_prompt == "query"


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "expected"),
    [
        ({"max_seq_length": 24}, {"model_max_length": 8}, 24),
        ({"max_seq_length": 4096}, None, 40),
        ({"max_seq_length": None}, {"model_max_length": 30}, 30),
        (None, {"model_max_length": 1e30}, 40),
        (None, None, 40),
    ],
    ids=["own file", "beyond the positions", "null", "no limit", "positions only"],
)
def test_max_tokens(
    folder: Path, sentence: dict[str, Any] | None, tokenizer: dict[str, Any] | None, expected: int
) -> None:
    """The nearest file decides, but never beyond the position table."""
    path = folder / "sentence_bert_config.json"
    path.unlink()
    if sentence is not None:
        write_json(path, sentence)
    if tokenizer is not None:
        write_json(folder / "tokenizer_config.json", tokenizer)
    assert read_model_folder(folder).max_tokens == expected


def test_a_card_fills_in_what_files_leave_out(folder: Path) -> None:
    """A plain transformer without sentence-transformers' files is described by its card."""
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    overrides = {"pooling": "cls", "max_tokens": 10, "normalize": False, "prompts": {"p": "x"}}
    model = read_model_folder(folder, overrides)
    assert (model.head.pooling, model.max_tokens, model.is_normalized) == ("cls", 10, False)
    assert model.prompts == {"p": "x"}


def test_an_unknown_architecture_is_served_from_its_own_graph(folder: Path) -> None:
    """It is padded, and fingerprinted with its external data."""
    write_json(folder / "config.json", {**CONFIG, "model_type": "strange"})
    (folder / "onnx").mkdir()
    write_padded(folder / "onnx/model.onnx")
    (folder / "onnx/model.onnx_data").write_bytes(b"x")
    model = read_model_folder(folder)
    assert (model.layout, model.onnx_file) == (Layout.PADDED, "onnx/model.onnx")
    assert [p.name for p in model.weights] == ["model.onnx", "model.onnx_data"]


def spoil(name: str, content: object) -> dict[str, object]:
    """Return a file's name and what to put in it; None removes it."""
    return {"name": name, "content": content}


MODULE = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}


def chain(*kinds: str, path: str = "") -> list[dict[str, object]]:
    """Return a module list."""
    return [
        {**MODULE, "type": f"sentence_transformers.models.{kind}", "path": path} for kind in kinds
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoil("config.json", None), r"config\.json: the file is missing"),
        (spoil("config.json", "{"), "not readable JSON"),
        (spoil("config.json", []), "expected a JSON object"),
        (spoil("config.json", {"model_type": 3}), "'model_type' is missing or of the wrong type"),
        (spoil("config.json", {**CONFIG, "hidden_size": None}), "'hidden_size'"),
        (spoil("config.json", {**CONFIG, "vocab_size": -1}), "'vocab_size'"),
        (spoil("config.json", {**CONFIG, "model_type": "strange"}), "not one the exporter knows"),
        (spoil("tokenizer.json", None), r"tokenizer\.json is missing"),
        (spoil("model.safetensors", None), "no model.safetensors"),
        (spoil("modules.json", "{"), "not a module list"),
        (spoil("modules.json", [{"kind": 1}]), "not a module list"),
        (
            spoil("modules.json", chain("Transformer", "Pooling", "CNN")),
            "module 'CNN' is not supported",
        ),
        (
            spoil("modules.json", chain("Transformer", "Dense", "LayerNorm")),
            "expected Dense modules",
        ),
        (spoil("modules.json", chain("Pooling", "Transformer")), "in this order"),
        (
            spoil("modules.json", chain("Transformer", "Pooling", path="..")),
            "must lie in the folder",
        ),
        (spoil("1_Pooling/config.json", None), "the pooling is unknown"),
        (spoil("1_Pooling/config.json", {}), "names no pooling_mode"),
        (spoil("1_Pooling/config.json", {"pooling_mode_odd": True}), "'pooling_mode_odd'"),
        (spoil("1_Pooling/config.json", {"pooling_mode": "odd"}), "'odd' is not one of"),
        (spoil("sentence_bert_config.json", {"max_seq_length": "x"}), "max_seq_length"),
        (spoil("config_sentence_transformers.json", {"prompts": [1]}), "prompts must map"),
        (
            spoil("config_sentence_transformers.json", {"default_prompt_name": "x"}),
            "'x' is not among",
        ),
    ],
)
def test_what_cannot_be_derived_is_an_error(
    folder: Path, change: dict[str, Any], reason: str
) -> None:
    """The error names the file and the field."""
    path = folder / change["name"]
    path.unlink()
    content = change["content"]
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=reason):
        read_model_folder(folder)


def test_a_module_outside_the_folder_is_refused(folder: Path) -> None:
    """Paths in foreign files do not lead elsewhere."""
    modules = chain("Transformer")
    modules += [{**MODULE, "type": "sentence_transformers.models.Pooling", "path": "../1_Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(FormatError, match="leaves the folder"):
        read_model_folder(folder)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "vocab.txt"])
def test_another_form_of_tokenizer_is_named_with_the_way_out(folder: Path, name: str) -> None:
    """It is not read, but the error says how to convert it."""
    (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes(b"x")
    with pytest.raises(FormatError, match=rf"{name} is not read; .*AutoTokenizer"):
        read_model_folder(folder)
