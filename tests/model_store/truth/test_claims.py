"""Everything that a folder says is honoured, without effect, or refused by name: by tables that miss no field."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, Architecture, architecture_of
from nestvec.model_store.folder.claims import FolderClaim, Recording, Verdict
from nestvec.model_store.folder.config_table import config_table
from nestvec.model_store.folder.gate import folder_claims
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.folder.module_tables import MODEL_TABLE, MODULE_TABLES, TRANSFORMER_TABLE
from nestvec.model_store.folder.tokenizer_table import SPECIAL_TOKENS_TABLE, TOKENIZER_TABLE

from tests.model_store.truth import make_modules, make_tokenizers
from tests.model_store.truth.make_claims import CASES, EXPECTED
from tests.model_store.truth.make_weights import Case, write_case
from tests.model_store.truth.test_weights import vectors_of
from tests.support.tiny import write_json, write_tiny_bert

STORED: Mapping[str, Any] = json.loads(EXPECTED.read_text())
VERSIONS = ("4", "5")
FAMILIES = Path(__file__).parents[2] / "export/families"
ROOMS = Path(__file__).parents[3] / "app/nestvec/model_store"
# What readers look up in other things than the files of the tables: cards, tokenizer.json, modules.json, ColBERT's own
# file, the parts of a field, and what a family's reader asks for too.
NOT_FIELDS = frozenset(
    {
        *("pooling", "code", "normalize", "max_tokens", "echo", "instruct", "adds_special_tokens"),
        *("drops_unknown", "tokenizer", "content", "special", "normalized", "id", "type", "path"),
        *("AutoTokenizer", "text", "message", "method", "method_output_name", "qint8"),
        *("attend_to_mask_tokens", "mask_punctuation", "query_token_id", "doc_token_id", "weight"),
        *("residual.weight", "max_position_embeddings", "num_hidden_layers"),
        *("layer_weights", "pre_bias", "latent_bias"),
        "activation",
        *("pair", "template", "name", "format", "activation"),
        # Parts of query_expansion.
        *("strategy", "attend", "token", "length"),
    }
)


def claims_of(folder: Path, verdict: Verdict) -> list[FolderClaim]:
    """The claims of a folder with a verdict."""
    return [claim for claim in folder_claims(folder) if claim.verdict is verdict]


def family_config(family: str) -> dict[str, Any]:
    """The config.json of a family's tiny model."""
    config: dict[str, Any] = json.loads((FAMILIES / f"{family}.json").read_text())["config"]
    return config


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_of_a_configuration_class_has_a_verdict(version: str) -> None:
    """Whatever transformers' class of a family reads or writes is in the family's table."""
    for family, names in STORED["fields"][version]["config.json"].items():
        config = family_config(family)
        asked = Recording(config)
        ARCHITECTURES[architecture_of(config)].dimensions(asked)
        table = config_table(family, config, frozenset(asked.read))
        claims = table.claims("config.json", {**dict.fromkeys(names), **config})
        unknown = [claim.field for claim in claims if claim.verdict is Verdict.UNKNOWN]
        assert (family, unknown) == (family, [])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_of_a_tokenizer_class_has_a_verdict(version: str) -> None:
    """Whatever transformers' classes read of tokenizer_config.json is in its table."""
    names = STORED["fields"][version]["tokenizer_config.json"]
    claims = TOKENIZER_TABLE.claims("", dict.fromkeys(names))
    assert [claim.field for claim in claims if claim.verdict is Verdict.UNKNOWN] == []


def test_every_field_that_a_reader_looks_up_is_in_a_table() -> None:
    """A reader that is given another field must say so, or its files' fields would be listed as unknown."""
    tables = (MODEL_TABLE, TRANSFORMER_TABLE, TOKENIZER_TABLE, SPECIAL_TOKENS_TABLE)
    config = config_table("bert", {}, frozenset())
    known = set(NOT_FIELDS)
    for table in (*tables, *MODULE_TABLES.values(), config):
        known |= {*table.honoured, *table.refused, *table.without_effect}
    files = [ROOMS / "folder" / f"{name}.py" for name in READERS] + sorted(ROOMS.glob("heads/*.py"))
    looked_up = {name for file in files for name in _literals(ast.parse(file.read_text("utf-8")))}
    assert looked_up - known == set()
    assert {"prompts", "model_max_length", "pooling_mode", "in_features"} <= looked_up


READERS = (
    *("model_folder", "modules", "pooling_settings", "tokenizer_files", "tokenizer_tokens"),
    *("transformer_settings", "remote_code", "attention_windows"),
)


def _literals(tree: ast.Module) -> set[str]:
    """The names that a module looks up in mappings."""
    names: set[object] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr in ("get", "flag") and isinstance(node.args[0], ast.Constant):
                names.add(node.args[0].value)
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            names.add(node.slice.value)
    return {name for name in names if isinstance(name, str)}


@pytest.mark.parametrize("path", sorted(FAMILIES.glob("*.json")), ids=lambda path: path.stem)
def test_what_decides_a_family_is_asked_for(path: Path) -> None:
    """A field without which a family reads otherwise is noted: no reader works on a copy of the file."""
    config = json.loads(path.read_text())["config"]
    family = ARCHITECTURES[architecture_of(config)]
    asked = Recording(config)
    expected = _read(family, asked)
    assert expected == _read(family, config)
    for name in config:
        without = {key: value for key, value in config.items() if key != name}
        assert _read(family, without) == expected or name in asked.read


def _read(family: Architecture, config: Mapping[str, Any]) -> str:
    """What a family's reader makes of a config.json, or its refusal."""
    try:
        return repr(family.read(config) if hasattr(family, "read") else family.dimensions(config))
    except FormatError as error:
        return error.message


@pytest.mark.parametrize("name", make_modules.CASES)
def test_the_gate_says_of_modules_what_loading_does(tmp_path: Path, name: str) -> None:
    """A folder that is served has no refused or unknown field; of one that is refused, the gate says why."""
    case = make_modules.CASES[name]
    folder = make_modules.write_folder(tmp_path / "model", case)
    if not case.refused:
        assert claims_of(folder, Verdict.REFUSED) == claims_of(folder, Verdict.UNKNOWN) == []
        return
    try:
        reasons = [f"{c.file}: {c.field}: {c.reason}" for c in claims_of(folder, Verdict.REFUSED)]
    except FormatError as error:
        reasons = [error.message]
    assert any(all(part in reason for part in case.refused) for reason in reasons)


@pytest.mark.parametrize("name", CASES)
def test_windows_are_those_of_the_class(tmp_path: Path, name: str) -> None:
    """Which layers have windows is what transformers' configuration class makes of the file."""
    folder = write_case(tmp_path / "model", Case(CASES[name]))
    assert claims_of(folder, Verdict.REFUSED) == claims_of(folder, Verdict.UNKNOWN) == []
    np.testing.assert_allclose(
        vectors_of(folder, Case(CASES[name])), STORED["vectors"][name], atol=1e-4
    )


def test_a_window_that_hides_nothing_changes_no_space(tmp_path: Path) -> None:
    """Published models have windows as long as their positions: their config.json, and so their space, stays."""
    config = {**CASES["qwen2, windows that are not used"], "sliding_window": 40}
    folder = write_case(tmp_path / "model", Case(config))
    assert read_model_folder(folder).config == config
    mistral = {**config, "model_type": "mistral", "max_position_embeddings": 32768}
    del mistral["sliding_window"]
    folder = write_case(tmp_path / "mistral", Case(mistral))
    assert read_model_folder(folder).config["sliding_window"] == 4096


REFUSED: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "pruned heads": ("config.json", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
    "experts": ("config.json", {"num_experts": 8}, "num_experts"),
    "cross attention": ("config.json", {"add_cross_attention": True}, "add_cross_attention"),
    "dimensions": ("config_sentence_transformers.json", {"truncate_dim": 8}, "truncate_dim"),
    "terms": ("config_sentence_transformers.json", {"max_active_dims": 8}, "max_active_dims"),
    "a slow tokenizer": ("tokenizer_config.json", {"from_slow": True}, "from_slow"),
    "a language": ("tokenizer_config.json", {"src_lang": "de"}, "src_lang"),
    "the side that is cut": (
        "tokenizer_config.json",
        {"truncation_side": "left"},
        "truncation_side",
    ),
    "another output": (
        "sentence_bert_config.json",
        {"modality_config": {"text": {"method": "get_text_features"}}},
        "modality_config",
    ),
    "another name": (
        "sentence_bert_config.json",
        {"module_output_name": "sentence_embedding"},
        "module_output_name",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_fields_that_only_the_libraries_read_are_refused(tmp_path: Path, name: str) -> None:
    """Loading and the gate say the same: file, field and the way out; null says nothing."""
    file, fields, field = REFUSED[name]
    folder = write_tiny_bert(tmp_path / "model")
    path = folder / file
    old = json.loads(path.read_text()) if path.is_file() else {}
    write_json(path, {**old, **dict.fromkeys(fields)})
    if field != "modality_config":
        assert claims_of(folder, Verdict.REFUSED) == []
    write_json(path, {**old, **fields})
    with pytest.raises(FormatError, match=f"{file}: {field}: .*; ") as caught:
        read_model_folder(folder)
    (claim,) = claims_of(folder, Verdict.REFUSED)
    assert (claim.file, claim.field) == (file, field)
    assert caught.value.message.endswith(claim.reason.rpartition(f"{field}: ")[2])


def test_biases_that_a_graph_lacks_are_refused(tmp_path: Path) -> None:
    """Llama's graph has none in its layers; Qwen2's class has no such setting."""
    for name in ("attention_bias", "mlp_bias"):
        config = {**CASES["llama, windows that its class has not"], name: True}
        folder = write_case(tmp_path / name, Case(config))
        with pytest.raises(FormatError, match=f"config.json: {name}"):
            read_model_folder(folder)
    config = {**CASES["qwen2, no windows"], "attention_bias": True}
    read_model_folder(write_case(tmp_path / "qwen2", Case(config)))


def test_an_older_name_of_the_length_counts(tmp_path: Path) -> None:
    """`max_len` is what model_max_length was called."""
    folder = write_tiny_bert(tmp_path / "model")
    write_json(folder / "sentence_bert_config.json", {})
    write_json(folder / "tokenizer_config.json", {"max_len": 13})
    assert read_model_folder(folder).max_tokens == 13


def test_unknown_fields_are_named_in_the_log_but_not_their_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What no reader and no library knows is served, and named once."""
    folder = write_tiny_bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "odd_scale": "secret"})
    with caplog.at_level("INFO"):
        read_model_folder(folder)
    assert "config.json: odd_scale" in caplog.text
    assert "secret" not in caplog.text
    (claim,) = claims_of(folder, Verdict.UNKNOWN)
    assert (claim.field, claim.value) == ("odd_scale", '"secret"')


def test_values_are_shown_short_and_printable(tmp_path: Path) -> None:
    """A file's text never reaches a terminal as it is."""
    folder = write_tiny_bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "\x1b[31m": "\x1b[2J" * 99})
    (claim,) = claims_of(folder, Verdict.UNKNOWN)
    assert (claim.field + claim.value).isprintable()
    assert len(claim.value) < 70


@pytest.mark.parametrize("name", make_tokenizers.FOLDERS)
def test_tokenizers_that_are_read_have_no_refused_field(tmp_path: Path, name: str) -> None:
    """Nor one that nothing knows."""
    make_tokenizers.write_folder(tmp_path, name)
    path = tmp_path / "tokenizer_config.json"
    fields = json.loads(path.read_text()) if path.is_file() else {}
    verdicts = {claim.verdict for claim in TOKENIZER_TABLE.claims("", fields)}
    assert not verdicts & {Verdict.REFUSED, Verdict.UNKNOWN}
