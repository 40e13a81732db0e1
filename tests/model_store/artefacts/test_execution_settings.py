"""What tuning found: kept by machine, and never trusted when broken."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from nestvec.errors import ArtefactError
from nestvec.model_store.artefacts.cache import find_artefact, make_artefact
from nestvec.model_store.artefacts.execution_settings import (
    Tuned,
    built_in,
    read_tuned,
    write_tuned,
)

from tests.model_store.artefacts.test_cache import fill

FOUND = Tuned(384, 3, 1, 64, 2)


def written(**changes: object) -> str:
    """A file with some fields changed."""
    return json.dumps({"tuned": {**asdict(FOUND), **changes}})


def test_a_finding_holds_for_its_machine_only(tmp_path: Path) -> None:
    """Another CPU, count or version finds nothing."""
    write_tuned(tmp_path, "this CPU", FOUND)
    assert read_tuned(tmp_path, "this CPU") == FOUND
    assert read_tuned(tmp_path, "that CPU") is None
    write_tuned(tmp_path, "this CPU", replace(FOUND, max_batch_tokens=512))
    write_tuned(tmp_path, "that CPU", FOUND)
    found = read_tuned(tmp_path, "this CPU")
    assert found is not None
    assert found.max_batch_tokens == 512


def test_a_finding_leaves_the_artefact_whole(tmp_path: Path) -> None:
    """It lies beside, not in the manifest."""
    artefact = make_artefact(tmp_path, "space", fill)
    write_tuned(artefact.folder, "this CPU", FOUND)
    assert find_artefact(tmp_path, "space") is not None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"tuned": 1}',
        '{"tuned": {"max_batch_tokens": 1}}',
        "{}",
        written(max_batch_tokens=0),
        written(max_batch_tokens="9"),
        written(worker_threads=True),
        written(plain_attention_tokens=-1),
    ],
)
def test_a_broken_finding_counts_as_none(tmp_path: Path, content: str) -> None:
    """The built-in choices serve."""
    path = write_tuned(tmp_path, "this CPU", FOUND)
    path.write_text(content)
    assert read_tuned(tmp_path, "this CPU") is None


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """It is named."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ArtefactError, match="file"):
        write_tuned(blocked, "this CPU", FOUND)


@pytest.mark.parametrize(
    ("l2_bytes", "budget"), [(None, 256), (512 << 10, 256), (1 << 20, 256), (2 << 20, 512)]
)
def test_built_in_choices(l2_bytes: int | None, budget: int) -> None:
    """A worker a CPU; budgets by the L2 cache."""
    assert built_in(4, l2_bytes, 90 << 20) == Tuned(budget, 4, 1, 128, 4)


def test_a_large_graph_is_not_opened_twice_unasked() -> None:
    """A second session holds a second copy of the packed weights; tuning and settings may still ask for it."""
    assert built_in(4, None, 257 << 20).lone_threads == 1
