"""The artefact cache: artefacts are whole or absent, and errors are clear when it cannot be written."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from nestvec.engine.types import FloatArray
from nestvec.errors import ArtefactError
from nestvec.model_store.artefacts.cache import FORMAT, MANIFEST, find_artefact, make_artefact
from nestvec.model_store.folder.model_folder import GRAPH_FILE

PROBES = np.eye(3, dtype=np.float32)


def build_artefact(folder: Path) -> FloatArray:
    """Stand in for an export."""
    (folder / GRAPH_FILE).write_bytes(b"graph")
    return PROBES


def test_an_artefact_is_made_and_found(tmp_path: Path) -> None:
    """It is found with its probes, and nothing temporary is left."""
    assert find_artefact(tmp_path, "space") is None
    artefact = make_artefact(tmp_path, "space", build_artefact)
    again = find_artefact(tmp_path, "space")
    assert again is not None
    assert (again.folder / GRAPH_FILE).read_bytes() == b"graph"
    np.testing.assert_array_equal(artefact.probes, PROBES)
    assert [p.name for p in (tmp_path / "artefacts").iterdir()] == ["space"]


@pytest.mark.parametrize("damage", ["truncated", "removed", "manifest"])
def test_a_damaged_artefact_is_made_anew(tmp_path: Path, damage: str) -> None:
    """A half-written one is never used."""
    artefact = make_artefact(tmp_path, "space", build_artefact)
    if damage == "truncated":
        (artefact.folder / GRAPH_FILE).write_bytes(b"gra")
    elif damage == "removed":
        (artefact.folder / GRAPH_FILE).unlink()
    else:
        (artefact.folder / MANIFEST).write_text('{"files"')
    assert find_artefact(tmp_path, "space") is None
    assert (
        make_artefact(tmp_path, "space", build_artefact).folder / GRAPH_FILE
    ).read_bytes() == b"graph"


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    """The error passes through, and nothing is left in the cache."""

    def fail(folder: Path) -> FloatArray:
        (folder / GRAPH_FILE).write_bytes(b"half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        make_artefact(tmp_path, "space", fail)
    assert list((tmp_path / "artefacts").iterdir()) == []


def test_two_processes_may_export_at_once(tmp_path: Path) -> None:
    """The second finds the first one's folder at its path and uses it."""

    def build_late(folder: Path) -> FloatArray:
        make_artefact(tmp_path, "space", build_artefact)
        return build_artefact(folder)

    assert (
        make_artefact(tmp_path, "space", build_late).folder / GRAPH_FILE
    ).read_bytes() == b"graph"


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    """It names the folder and what to do."""

    def full(folder: Path) -> FloatArray:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    with pytest.raises(
        ArtefactError, match=r"cannot be written: No space left on device; free space"
    ):
        make_artefact(tmp_path, "space", full)


def test_an_unwritable_cache_is_a_clear_error(tmp_path: Path) -> None:
    """Here a file stands where the folder should be; a read-only disk fails the same way."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(ArtefactError, match=r"cache_dir .*cache cannot be written"):
        make_artefact(tmp_path / "cache", "space", build_artefact)


def test_an_older_format_is_made_anew_in_the_same_space(tmp_path: Path) -> None:
    """What users put beside it (calibration, tuning, maps) is kept; what was exported is not."""
    old = make_artefact(tmp_path, "space", build_artefact).folder
    manifest = json.loads((old / MANIFEST).read_text())
    (old / MANIFEST).write_text(json.dumps({**manifest, "format": FORMAT - 1}))
    (old / GRAPH_FILE).write_bytes(b"older")
    (old / "quantisation.npz").write_bytes(b"theirs")
    (old / "maps").mkdir()
    (old / "maps" / "svd.npz").write_bytes(b"a map")
    assert find_artefact(tmp_path, "space") is None
    new = make_artefact(tmp_path, "space", build_artefact).folder
    assert new == old
    assert (new / GRAPH_FILE).read_bytes() == b"graph"
    assert (new / "quantisation.npz").read_bytes() == b"theirs"
    assert (new / "maps" / "svd.npz").read_bytes() == b"a map"
