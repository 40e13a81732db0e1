"""Copies of graphs with packed weights: whole or absent, for one machine and runtime, and not for ever."""

import dataclasses
import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from nestvec.errors import ArtefactError, FormatError
from nestvec.model_store.artefacts.cache import MANIFEST, make_artefact
from nestvec.model_store.artefacts.packed_weights import (
    DRAFT_MAX_AGE_S,
    DRAFT_PREFIX,
    RESERVE_BYTES,
    UNUSED_MAX_AGE_S,
    PackingKey,
    find_packed_graph,
    write_packed_graph,
)
from nestvec.model_store.folder.model_folder import GRAPH_FILE

from tests.model_store.artefacts.test_cache import build_artefact

KEY = PackingKey("this CPU", "runtime 1")
NEWER = dataclasses.replace(KEY, runtime="runtime 2")
ELSEWHERE = dataclasses.replace(KEY, machine="that CPU")
WEIGHTS = "weights.bin"


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """The folder of an artefact."""
    return make_artefact(tmp_path, "space", build_artefact).folder


def pack(path: Path) -> None:
    """Stand in for a runtime that writes a packed graph."""
    path.write_bytes(b"packed graph")
    (path.parent / WEIGHTS).write_bytes(b"packed weights")


def found(artefact: Path, key: PackingKey) -> Path | None:
    """Return the file of the copy that is found."""
    copy = find_packed_graph(artefact, key)
    return copy.graph if copy else None


def write(artefact: Path, key: PackingKey) -> Path:
    """Write a copy and keep it."""
    return write_packed_graph(artefact, key, 26, pack).keep()


def copies(artefact: Path) -> list[Path]:
    """Return the folders beside the artefact's files, finished or not."""
    return sorted(path for path in artefact.iterdir() if path.is_dir())


def age(path: Path, seconds: float) -> None:
    """Let a file or folder be as old as that."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_copy_is_written_and_found(artefact: Path) -> None:
    """It holds what was written, and nothing temporary is left."""
    assert found(artefact, KEY) is None
    graph = write(artefact, KEY)
    assert graph == found(artefact, KEY)
    assert graph.name == GRAPH_FILE
    assert (graph.parent / WEIGHTS).read_bytes() == b"packed weights"
    assert copies(artefact) == [graph.parent]


def test_a_copy_is_for_one_machine_and_runtime(artefact: Path) -> None:
    """Another of either finds none; a newer runtime's takes its place, another machine's stands beside it."""
    first = write(artefact, KEY)
    assert found(artefact, NEWER) is None
    assert found(artefact, ELSEWHERE) is None
    second = write(artefact, NEWER)
    assert copies(artefact) == [second.parent]
    assert first != second
    other = write(artefact, ELSEWHERE)
    assert copies(artefact) == sorted([second.parent, other.parent])
    assert found(artefact, NEWER) == second


def test_a_copy_that_no_machine_opens_is_removed(artefact: Path) -> None:
    """Finding it counts as use."""
    graph = write(artefact, ELSEWHERE)
    age(graph.parent / MANIFEST, 2 * UNUSED_MAX_AGE_S)
    assert found(artefact, ELSEWHERE) is not None
    write(artefact, KEY)
    assert found(artefact, ELSEWHERE) is not None
    age(graph.parent / MANIFEST, 2 * UNUSED_MAX_AGE_S)
    write(artefact, NEWER)
    assert found(artefact, ELSEWHERE) is None


@pytest.mark.parametrize("damage", ["truncated", "removed", "manifest", "key", "graph"])
def test_a_damaged_copy_is_written_anew(artefact: Path, damage: str) -> None:
    """It is never given to a runtime."""
    graph = write(artefact, KEY)
    manifest = graph.parent / MANIFEST
    if damage == "truncated":
        (graph.parent / WEIGHTS).write_bytes(b"packed wei")
    elif damage == "removed":
        (graph.parent / WEIGHTS).unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:30])
    else:
        content = json.loads(manifest.read_text())
        if damage == "key":
            content["key"]["machine"] = "that CPU"
        else:
            content["files"].pop(GRAPH_FILE)
        manifest.write_text(json.dumps(content))
    assert found(artefact, KEY) is None
    write(artefact, KEY)
    assert found(artefact, KEY) == graph
    assert (graph.parent / WEIGHTS).read_bytes() == b"packed weights"
    assert copies(artefact) == [graph.parent]


class Usage(NamedTuple):
    """Room on a disk."""

    total: int
    used: int
    free: int


def test_a_disk_without_room_is_an_error(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is begun; a reserve stays for others."""
    free = 2 * 1000 + RESERVE_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
    with pytest.raises(ArtefactError, match="are free"):
        write_packed_graph(artefact, KEY, 1001, pack)
    assert copies(artefact) == []
    assert write_packed_graph(artefact, KEY, 1000, pack).keep().is_file()


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system"), FormatError("no")])
def test_a_failure_leaves_nothing(artefact: Path, error: Exception) -> None:
    """Of a read-only or full disk, or of the runtime."""

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises((ArtefactError, FormatError)):
        write_packed_graph(artefact, KEY, 26, fail)
    assert copies(artefact) == []


def test_what_a_killed_process_left_is_removed(artefact: Path) -> None:
    """What another one is writing now is not."""
    killed, running = artefact / f"{DRAFT_PREFIX}killed", artefact / f"{DRAFT_PREFIX}running"
    for draft in (killed, running):
        draft.mkdir()
        (draft / WEIGHTS).write_bytes(b"half")
    age(killed, 2 * DRAFT_MAX_AGE_S)
    write(artefact, KEY)
    assert not killed.exists()
    assert running.exists()


def test_a_copy_can_be_opened_before_it_is_kept(artefact: Path) -> None:
    """Nobody else finds it until it is known to be right, and one that is wrong leaves nothing."""
    draft = write_packed_graph(artefact, KEY, 26, pack)
    assert draft.graph.read_bytes() == b"packed graph"
    assert found(artefact, KEY) is None
    draft.discard()
    assert copies(artefact) == []
    draft = write_packed_graph(artefact, KEY, 26, pack)
    with draft.graph.open("rb") as opened:
        kept = draft.keep()
        assert opened.read() == b"packed graph"
    assert found(artefact, KEY) == kept
    copy = find_packed_graph(artefact, KEY)
    assert copy is not None
    assert copy.keep() == kept
    copy.discard()
    assert copies(artefact) == []


def test_a_disk_that_fails_in_the_end_is_an_error(
    artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that never reached it are not taken for a copy, and nothing of it stays."""

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    draft = write_packed_graph(artefact, KEY, 26, pack)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ArtefactError, match="No space left"):
        draft.keep()
    assert copies(artefact) == []


def test_several_that_start_at_once_share_one_copy(artefact: Path) -> None:
    """Whoever is last takes the first one's."""
    all_write = threading.Barrier(3, timeout=10)

    def pack_together(path: Path) -> None:
        all_write.wait()
        pack(path)

    with ThreadPoolExecutor(3) as threads:
        written = [
            threads.submit(write_packed_graph, artefact, KEY, 26, pack_together) for _ in range(3)
        ]
        graphs = {each.result().keep() for each in written}
    assert graphs == {found(artefact, KEY)}
    assert copies(artefact) == [next(iter(graphs)).parent]


def test_an_artefact_that_is_built_anew_has_no_copy(tmp_path: Path, artefact: Path) -> None:
    """Its graph may be another one; the old one's copy is not kept either."""
    write(artefact, KEY)
    (artefact / GRAPH_FILE).write_bytes(b"damaged")
    assert make_artefact(tmp_path, "space", build_artefact).folder == artefact
    assert found(artefact, KEY) is None
    assert copies(artefact) == []
