"""Tokenizers of tiny folders give the ids that transformers gives, or are refused by file and field.

`make_tokenizers.py` builds the folders and made the expected ids; the versions of transformers stand beside them.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.tokenizer_changes import NO_CHANGES
from nestvec.engine.types import Truncation
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.folder.tokenizer_files import read_tokenizer_changes
from nestvec.model_store.sources.file_names import TOKENIZER_FILES
from nestvec.model_store.sources.hub import HUB_SMALL_FILES, MODULE_FILES

from tests.model_store.truth.make_tokenizers import (
    EXPECTED,
    FOLDERS,
    TEXTS,
    VOCABULARY_SIZE,
    write_folder,
)
from tests.support.tiny import write_json, write_tiny_bert

IDS = json.loads(EXPECTED.read_text("utf-8"))["ids"]
UNCHANGED = ("bert plain", "llama plain", "qwen2 eos ignored")
LIMIT = 512


def open_as_transformers(folder: Path, config: dict[str, Any]) -> Tokenizer:
    """Open a folder's tokenizer with what the files beside it change."""
    return Tokenizer(
        folder / "tokenizer.json",
        max_tokens=LIMIT,
        vocabulary_size=VOCABULARY_SIZE,
        changes=read_tokenizer_changes(folder, config, VOCABULARY_SIZE),
    )


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Every file beside tokenizer.json counts as it does there."""
    config = write_folder(tmp_path, name)
    tokenizer = open_as_transformers(tmp_path, config)
    assert [tokenizer.library.encode(text).ids for text in TEXTS] == IDS[name]


@pytest.mark.parametrize("name", UNCHANGED)
def test_a_folder_that_says_nothing_else_is_unchanged(name: str, tmp_path: Path) -> None:
    """Fields that change nothing leave the tokenizer, and with it the space, as they were."""
    config = write_folder(tmp_path, name)
    assert read_tokenizer_changes(tmp_path, config, VOCABULARY_SIZE) == NO_CHANGES
    assert NO_CHANGES.summary() == {}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "own code": (
        {"auto_map": {"AutoTokenizer": [None, "me/repo--tokenization_x.XTokenizer"]}},
        "tokenizer_config.json",
        "auto_map",
    ),
    "slow class": (
        {"tokenizer_class": "BertJapaneseTokenizer"},
        "tokenizer_config.json",
        "tokenizer_class",
    ),
    "case is a text": (
        {"tokenizer_class": "BertTokenizer", "do_lower_case": "yes"},
        "tokenizer_config.json",
        "do_lower_case",
    ),
    "decoder is a list": (
        {"added_tokens_decoder": ["[X]"]},
        "tokenizer_config.json",
        "added_tokens_decoder",
    ),
    "decoder of texts": (
        {"added_tokens_decoder": {"5": "[X]"}},
        "tokenizer_config.json",
        "added_tokens_decoder",
    ),
    "decoder by names": (
        {"added_tokens_decoder": {"five": {"content": "[X]"}, "six": {"content": "[Y]"}}},
        "tokenizer_config.json",
        "added_tokens_decoder",
    ),
    "special token is a number": (
        {"tokenizer_class": "BertTokenizer", "sep_token": 3},
        "tokenizer_config.json",
        "sep_token",
    ),
    "eos without a token": (
        {"tokenizer_class": "LlamaTokenizer", "add_eos_token": True, "eos_token": None},
        "tokenizer_config.json",
        "add_eos_token",
    ),
    "prefix space of another kind": (
        {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": True},
        "tokenizer_config.json",
        "add_prefix_space",
    ),
    "replaced pre-tokenizer": (
        {"fix_mistral_regex": True},
        "tokenizer_config.json",
        "fix_mistral_regex",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_reproduced_is_refused(case: str, tmp_path: Path) -> None:
    """The message names file and field, and a card may say that tokenizer.json is right."""
    fields, file, field = REFUSED[case]
    config = write_folder(tmp_path, "bert plain")
    write_json(tmp_path / "tokenizer_config.json", fields)
    with pytest.raises(FormatError) as caught:
        read_tokenizer_changes(tmp_path, config, VOCABULARY_SIZE)
    assert file in caught.value.message
    assert field in caught.value.message
    plain = {"tokenizer": "plain"}
    assert read_tokenizer_changes(tmp_path, config, VOCABULARY_SIZE, plain) == NO_CHANGES


def test_authors_own_code_of_qwen2_ends_texts(tmp_path: Path) -> None:
    """gte-Qwen2's and Stella's code makes the template of Llama's class, which plain Qwen2 does not."""
    config = write_folder(tmp_path, "qwen2 eos ignored")
    path = tmp_path / "tokenizer_config.json"
    fields = json.loads(path.read_text("utf-8"))
    code = ["tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast"]
    write_json(path, {**fields, "auto_map": {"AutoTokenizer": code}})
    tokenizer = open_as_transformers(tmp_path, config)
    ids = tokenizer.encode_texts(["alpha"], TokenizeOptions(Truncation.ERROR))[0].ids
    plain = IDS["qwen2 eos ignored"]
    assert ids[-1] == tokenizer.library.encode("<|endoftext|>").ids[0]
    assert [*plain[0], ids[-1]] == tokenizer.library.encode(TEXTS[0]).ids


@pytest.mark.parametrize("file", ["sentence_bert_config.json", "sentence_xlnet_config.json"])
def test_lower_case_of_sentence_transformers(file: str, tmp_path: Path) -> None:
    """The library puts Lowercase before the normalizer, so places in the text stay those of the text."""
    config = write_folder(tmp_path, "bert cased asked for")
    write_json(tmp_path / file, {"do_lower_case": True})
    tokenizer = open_as_transformers(tmp_path, config)
    lower = [text.lower() for text in ("ALPHA Beta", "café ÉTÉ")]
    for text, small in zip(("ALPHA Beta", "café ÉTÉ"), lower, strict=True):
        ids, starts = tokenizer.encode_with_starts(text, TokenizeOptions(Truncation.ERROR))
        small_ids, small_starts = tokenizer.encode_with_starts(
            small, TokenizeOptions(Truncation.ERROR)
        )
        assert list(ids) == list(small_ids)
        assert list(starts) == list(small_starts)


def test_spaces_change_only_where_the_tokenizer_does(tmp_path: Path) -> None:
    """A field that changes nothing leaves the space; one that does makes another."""
    folder = write_tiny_bert(tmp_path / "tiny")
    hashes = HashCache(tmp_path / "hashes.json")
    plain = space_fingerprint(read_model_folder(folder), hashes)
    path = folder / "tokenizer_config.json"
    old = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    write_json(path, {**old, "tokenizer_class": "BertTokenizer", "do_lower_case": True})
    assert space_fingerprint(read_model_folder(folder), hashes) == plain
    write_json(path, {**old, "tokenizer_class": "BertTokenizer", "do_lower_case": False})
    changed = read_model_folder(folder)
    assert space_fingerprint(changed, hashes) != plain
    assert changed.open_tokenizer().library.encode("ALPHA").ids[1] == 1
    card = read_model_folder(folder, {"tokenizer": "plain"})
    assert space_fingerprint(card, hashes) == plain


def test_the_hub_pull_brings_what_is_read() -> None:
    """Every file that a tokenizer is built of is pulled, from a repository's root and from a module's folder."""
    read = {"tokenizer.json", "added_tokens.json", "sentence_xlnet_config.json", *TOKENIZER_FILES}
    assert read <= set(HUB_SMALL_FILES)
    assert read <= set(MODULE_FILES)
