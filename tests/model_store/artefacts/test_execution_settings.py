"""Execution settings that tuning found: kept by machine, and never trusted when broken."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from nestvec.errors import ArtefactError
from nestvec.model_store.artefacts.cache import find_artefact, make_artefact
from nestvec.model_store.artefacts.execution_settings import (
    ExecutionSettings,
    default_execution_settings,
    read_execution_settings,
    write_execution_settings,
)

from tests.model_store.artefacts.test_cache import build_artefact

FOUND = ExecutionSettings(384, 3, 1, 64, 2)


def written(**changes: object) -> str:
    """Return a file's content with some fields changed."""
    return json.dumps({"tuned": {**asdict(FOUND), **changes}})


def test_a_finding_holds_for_its_machine_only(tmp_path: Path) -> None:
    """Another CPU, number of CPUs or version finds nothing."""
    write_execution_settings(tmp_path, "this CPU", FOUND)
    assert read_execution_settings(tmp_path, "this CPU") == FOUND
    assert read_execution_settings(tmp_path, "that CPU") is None
    write_execution_settings(tmp_path, "this CPU", replace(FOUND, max_batch_tokens=512))
    write_execution_settings(tmp_path, "that CPU", FOUND)
    settings = read_execution_settings(tmp_path, "this CPU")
    assert settings is not None
    assert settings.max_batch_tokens == 512


def test_a_finding_leaves_the_artefact_whole(tmp_path: Path) -> None:
    """It lies beside the artefact's files and is not in the manifest."""
    artefact = make_artefact(tmp_path, "space", build_artefact)
    write_execution_settings(artefact.folder, "this CPU", FOUND)
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
    """The defaults are used instead."""
    path = write_execution_settings(tmp_path, "this CPU", FOUND)
    path.write_text(content)
    assert read_execution_settings(tmp_path, "this CPU") is None


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The error names the folder."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ArtefactError, match="file"):
        write_execution_settings(blocked, "this CPU", FOUND)


@pytest.mark.parametrize(
    ("l2_bytes", "budget"), [(None, 256), (512 << 10, 256), (1 << 20, 256), (2 << 20, 512)]
)
def test_default_settings(l2_bytes: int | None, budget: int) -> None:
    """By default there is a worker for each CPU, and the budget goes by the L2 cache."""
    assert default_execution_settings(4, l2_bytes, 90 << 20) == ExecutionSettings(
        budget, 4, 1, 128, 4
    )


def test_a_large_graph_is_not_held_twice_unasked() -> None:
    """Where a second session would hold a second copy of the weights; tuning and settings may still ask for it."""
    assert default_execution_settings(4, None, 257 << 20).lone_threads == 1
    assert default_execution_settings(4, None, 257 << 20, maps_weights=True).lone_threads == 4


def test_a_lone_text_has_a_few_threads_of_many_cpus() -> None:
    """More were not measured."""
    assert default_execution_settings(64, None, 90 << 20, maps_weights=True).lone_threads == 4
