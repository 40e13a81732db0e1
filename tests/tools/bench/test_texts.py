"""Texts of benchmarks: unique, repeatable, from a folder or made."""

from pathlib import Path

import pytest
from nestvec.tools.bench.texts import TEXTS_PER_ROUND, WORKLOADS, workload_texts


@pytest.mark.parametrize("workload", WORKLOADS)
def test_texts_are_unique_and_repeatable(workload: str) -> None:
    """Texts are unique, so that no cache can help, and the same for the same seed."""
    texts = workload_texts(workload, None, seed=3)
    assert len(set(texts)) == len(texts) == TEXTS_PER_ROUND[workload]
    assert texts == workload_texts(workload, None, seed=3)
    assert not set(texts) & set(workload_texts(workload, None, seed=4))


def test_texts_from_a_folder(tmp_path: Path) -> None:
    """Texts of a folder are the lines of a file, or the objects of the mixed file."""
    (tmp_path / "short.txt").write_text("one\ntwo\n")
    (tmp_path / "mix.jsonl").write_text('{"text": "three", "kind": "short"}\n')
    assert {t.split(" ", 1)[1] for t in workload_texts("short", tmp_path, seed=1)} == {"one", "two"}
    assert workload_texts("mixed", tmp_path, seed=1)[0] == "1-0 three"
