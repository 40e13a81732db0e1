"""Copies of an artefact's graph whose weights are packed as a machine's kernels take them, kept beside it.

Packing depends on the processor and on the runtime's version, so a copy is named by both, and by the artefact that it
was made of. A folder is whole or absent, as the artefact's own: temporary name, flushed, renamed, sizes in a manifest.
It may be removed at any time: who has it mapped keeps it until it is unmapped.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from nestvec.errors import ArtefactError
from nestvec.model_store.artefacts.cache import MANIFEST, PACKED_PREFIX
from nestvec.model_store.cache_files import (
    cache_writes,
    ensure_dir,
    flush_behind,
    rename_into_place,
    sync_tree,
)
from nestvec.model_store.folder.model_folder import GRAPH_FILE
from nestvec.system.json_files import load_json

DRAFT_PREFIX: Final = ".packing-"
DRAFT_MAX_AGE_S: Final = 3600  # an older one is of a process that was killed
# A cache may serve machines of several kinds: what is another's stays, unless nobody has opened it for so long.
UNUSED_MAX_AGE_S: Final = 30 * 86_400
# The raw weights are written beside the packed ones: they come to 1.8 to 1.95 times the graph.
SIZE_FACTOR: Final = 2
RESERVE_BYTES: Final = 2**30  # of the disk, that is left to others


@dataclass(frozen=True, slots=True)
class PackingKey:
    """What decides how weights are packed.

    Attributes:
        machine: The processor, with its vector units.
        runtime: The runtime and its version.
    """

    machine: str
    runtime: str


@dataclass(frozen=True, slots=True)
class _Draft:
    """A copy under a temporary name, whose pages are on their way to the disk."""

    artefact: Path
    key: PackingKey
    scratch: tempfile.TemporaryDirectory[str]
    flushed: Future[None]


@dataclass(frozen=True, slots=True)
class PackedGraph:
    """A packed copy of an artefact's graph that can be opened: one in the cache, or one that was just written.

    Attributes:
        graph: The ONNX file to open. Who has opened it may go on after `keep` or `discard`.
    """

    graph: Path
    _draft: _Draft | None = None

    def keep(self) -> Path:
        """Put a copy that was just written in place, whole and flushed, and remove what it replaces.

        Returns:
            The ONNX file in the cache; another process's, where that was first.

        Raises:
            ArtefactError: The cache cannot be written; the copy is gone then.
        """
        if self._draft is None:
            return self.graph
        artefact, key = self._draft.artefact, self._draft.key
        target = _folder(artefact, key)
        with cache_writes(artefact), self._draft.scratch:
            self._draft.flushed.result()
            folder = self.graph.parent
            files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
            manifest = {"key": asdict(key), "files": files}
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
            sync_tree(folder)
            if target.is_dir() and find_packed_graph(artefact, key) is None:
                shutil.rmtree(target)
            rename_into_place(folder, target)
        kept = find_packed_graph(artefact, key)
        if kept is None:
            raise ArtefactError(f"{target}: written but not readable")
        _remove_replaced(artefact, key)
        return kept.graph

    def discard(self) -> None:
        """Remove a copy that turned out to be wrong, as far as the cache can be written."""
        if self._draft is None:
            shutil.rmtree(self.graph.parent, ignore_errors=True)
            return
        with suppress(OSError):
            self._draft.flushed.result()
        self._draft.scratch.cleanup()


def find_packed_graph(artefact: Path, key: PackingKey) -> PackedGraph | None:
    """Find the packed copy of an artefact's graph; None where there is none that is whole."""
    try:
        folder = _folder(artefact, key)
        manifest = load_json((folder / MANIFEST).read_text("utf-8"))
        files = dict(manifest["files"])
        if GRAPH_FILE not in files or manifest["key"] != asdict(key):
            return None
        if any((folder / name).stat().st_size != size for name, size in files.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with suppress(OSError):  # when it was last used; a read-only cache does not note it
        os.utime(folder / MANIFEST)
    return PackedGraph(folder / GRAPH_FILE)


def write_packed_graph(
    artefact: Path, key: PackingKey, graph_bytes: int, write: Callable[[Path], None]
) -> PackedGraph:
    """Write the packed copy of an artefact's graph under a temporary name, and begin to flush it to the disk.

    Gigabytes take as long to reach a disk as to be packed, so they do while the copy is opened and checked; `keep`
    gives one that is right its name.

    Args:
        artefact: The artefact's folder.
        key: What the packing is for.
        graph_bytes: Size of the graph with its weights.
        write: Writes the packed graph to a path, with its weights beside it.

    Raises:
        ArtefactError: The disk has no room, or the cache cannot be written.
    """
    with cache_writes(artefact), ExitStack() as undo:
        _remove_drafts(artefact)
        _check_room(artefact, graph_bytes)
        scratch = tempfile.TemporaryDirectory(dir=artefact, prefix=DRAFT_PREFIX)
        undo.enter_context(scratch)
        graph = ensure_dir(Path(scratch.name) / "packed") / GRAPH_FILE
        write(graph)
        undo.pop_all()
    return PackedGraph(graph, _Draft(artefact, key, scratch, flush_behind(graph.parent)))


def _folder(artefact: Path, key: PackingKey) -> Path:
    """Return the folder of a packed copy; an artefact that was built anew has another."""
    identity = json.dumps(asdict(key)).encode() + (artefact / MANIFEST).read_bytes()
    return artefact / f"{PACKED_PREFIX}{hashlib.sha256(identity).hexdigest()[:16]}"


def _check_room(artefact: Path, graph_bytes: int) -> None:
    """Raise ArtefactError where the disk has no room for a packed copy."""
    free_bytes = shutil.disk_usage(artefact).free
    if free_bytes < SIZE_FACTOR * graph_bytes + RESERVE_BYTES:
        raise ArtefactError(
            f"{artefact}: packed weights need {SIZE_FACTOR * graph_bytes >> 20} MB and as a reserve "
            f"{RESERVE_BYTES >> 20} MB, and {free_bytes >> 20} MB are free"
        )


def _remove_drafts(artefact: Path) -> None:
    """Remove what killed processes have left half-written."""
    for draft in artefact.glob(f"{DRAFT_PREFIX}*"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > DRAFT_MAX_AGE_S:
                shutil.rmtree(draft)


def _remove_replaced(artefact: Path, key: PackingKey) -> None:
    """Remove the copies that this machine will not use again, and those that nobody uses."""
    kept = _folder(artefact, key)
    for folder in artefact.glob(f"{PACKED_PREFIX}*"):
        if folder != kept and _is_replaced(folder / MANIFEST, key):
            shutil.rmtree(folder, ignore_errors=True)


def _is_replaced(manifest: Path, key: PackingKey) -> bool:
    try:
        is_mine = load_json(manifest.read_text("utf-8"))["key"]["machine"] == key.machine
        return is_mine or time.time() - manifest.stat().st_mtime > UNUSED_MAX_AGE_S
    except (OSError, ValueError, KeyError, TypeError):
        return True
