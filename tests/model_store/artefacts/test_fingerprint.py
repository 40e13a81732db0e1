"""Fingerprints: equal for equal spaces, different for different ones."""

import json
from pathlib import Path

import pytest
from nestvec.errors import ArtefactError
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.sources.hashes import file_sha256

from tests.support.tiny import write_json, write_tiny_bert


def fingerprint(folder: Path, cache: Path) -> str:
    """Compute a folder's fingerprint, with a fresh memory of hashes."""
    return space_fingerprint(read_model_folder(folder), HashCache(cache / "hashes.json"))


def test_equal_content_has_an_equal_fingerprint(tmp_path: Path) -> None:
    """It does not depend on where the folder lies."""
    first = fingerprint(write_tiny_bert(tmp_path / "a"), tmp_path)
    second = fingerprint(write_tiny_bert(tmp_path / "b"), tmp_path)
    assert first == second
    assert len(first) == 32


@pytest.mark.parametrize("change", ["weights", "pooling", "prompts", "max tokens", "tokenizer"])
def test_whatever_changes_vectors_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    """A vector store can compare fingerprints before it mixes vectors."""
    before = fingerprint(write_tiny_bert(tmp_path / "a"), tmp_path)
    folder = write_tiny_bert(tmp_path / "b", seed=8 if change == "weights" else 7)
    if change == "pooling":
        write_json(folder / "1_Pooling/config.json", {"pooling_mode": "cls"})
    elif change == "prompts":
        write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "other"}})
    elif change == "max tokens":
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": 20})
    elif change == "tokenizer":
        path = folder / "tokenizer.json"
        path.write_text(path.read_text() + " ")
    assert fingerprint(folder, tmp_path) != before


def test_every_build_has_a_space_of_its_own(tmp_path: Path) -> None:
    """Precision and storage change vectors; calibration texts only where they are used."""
    folder = read_model_folder(write_tiny_bert(tmp_path / "a"))
    texts = tmp_path / "texts"
    texts.write_text("line\n" * 20)
    hashes = HashCache(tmp_path / "hashes.json")
    builds = [
        BuildOptions(precision, halves_weights=h) for precision in Precision for h in (False, True)
    ]
    builds.append(BuildOptions(Precision.INT8, calibration=texts))
    builds.append(BuildOptions(Precision.INT8, rounds_table=True))
    spaces = [space_fingerprint(folder, hashes, build) for build in builds]
    assert len(set(spaces)) == len(spaces) == 12
    unused = BuildOptions(Precision.FP32, calibration=texts)
    assert space_fingerprint(folder, hashes, unused) == space_fingerprint(folder, hashes)


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    """A warm start reads no gigabytes; a changed file is read again."""
    file, memory = tmp_path / "weights", tmp_path / "hashes.json"
    file.write_bytes(b"one")
    first = HashCache(memory).sha256(file)
    assert first == file_sha256(file)
    known = json.loads(memory.read_text())
    memory.write_text(json.dumps(dict.fromkeys(known, "remembered")))
    assert HashCache(memory).sha256(file) == "remembered"
    file.write_bytes(b"two and longer")
    assert HashCache(memory).sha256(file) == file_sha256(file)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_broken_memory_is_an_empty_one(tmp_path: Path, content: str) -> None:
    """It only saves time, so a broken one is no error."""
    (tmp_path / "hashes.json").write_text(content)
    (tmp_path / "file").write_bytes(b"x")
    assert HashCache(tmp_path / "hashes.json").sha256(tmp_path / "file") == file_sha256(
        tmp_path / "file"
    )


def test_an_unwritable_memory_is_no_error(tmp_path: Path) -> None:
    """A read-only cache works."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "blocked").write_text("a file where a folder should be")
    assert HashCache(tmp_path / "blocked/hashes.json").sha256(tmp_path / "file")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(ArtefactError, match="gone"):
        HashCache(tmp_path / "hashes.json").sha256(tmp_path / "gone")
    with pytest.raises(ArtefactError, match="gone"):
        file_sha256(tmp_path / "gone")
