"""Texts of benchmarks: unique, repeatable, from a folder or made."""

from pathlib import Path

import pytest
from nestvec.tools.bench.loads import LOADS, TEXTS, texts_of


@pytest.mark.parametrize("load", LOADS)
def test_texts_are_unique_and_repeatable(load: str) -> None:
    """No cache can help, and a run can be repeated."""
    texts = texts_of(load, None, seed=3)
    assert len(set(texts)) == len(texts) == TEXTS[load]
    assert texts == texts_of(load, None, seed=3)
    assert not set(texts) & set(texts_of(load, None, seed=4))


def test_texts_from_a_folder(tmp_path: Path) -> None:
    """Lines, or the mixed file's objects."""
    (tmp_path / "short.txt").write_text("one\ntwo\n")
    (tmp_path / "mix.jsonl").write_text('{"text": "three", "kind": "short"}\n')
    assert {t.split(" ", 1)[1] for t in texts_of("short", tmp_path, seed=1)} == {"one", "two"}
    assert texts_of("mixed", tmp_path, seed=1)[0] == "1-0 three"
