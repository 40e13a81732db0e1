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
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from nestvec.errors import ArtefactError
from nestvec.model_store.artefacts.cache import MANIFEST, PACKED_PREFIX
from nestvec.model_store.cache_files import cache_writes, ensure_dir, rename_into_place, sync_tree
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


def find_packed_graph(artefact: Path, key: PackingKey) -> Path | None:
    """Find the packed copy of an artefact's graph; None where there is none that is whole.

    Returns:
        The ONNX file to open.
    """
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
    return folder / GRAPH_FILE


def write_packed_graph(
    artefact: Path, key: PackingKey, graph_bytes: int, write: Callable[[Path], None]
) -> Path:
    """Write the packed copy of an artefact's graph, and remove what it replaces.

    Args:
        artefact: The artefact's folder.
        key: What the packing is for.
        graph_bytes: Size of the graph with its weights.
        write: Writes the packed graph to a path, with its weights beside it.

    Returns:
        The ONNX file to open; another process's, where that was first.

    Raises:
        ArtefactError: The disk has no room, or the cache cannot be written.
    """
    with cache_writes(artefact):
        target = _folder(artefact, key)
        _remove_drafts(artefact)
        _check_room(artefact, graph_bytes)
        with tempfile.TemporaryDirectory(dir=artefact, prefix=DRAFT_PREFIX) as scratch:
            folder = ensure_dir(Path(scratch) / "packed")
            write(folder / GRAPH_FILE)
            files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
            manifest = {"key": asdict(key), "files": files}
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
            sync_tree(folder)
            if target.is_dir() and find_packed_graph(artefact, key) is None:
                shutil.rmtree(target)
            rename_into_place(folder, target)
    graph = find_packed_graph(artefact, key)
    if graph is None:
        raise ArtefactError(f"{target}: written but not readable")
    _remove_replaced(artefact, key)
    return graph


def discard_packed_graph(graph: Path) -> None:
    """Remove a packed copy that turned out to be wrong, as far as the cache can be written."""
    shutil.rmtree(graph.parent, ignore_errors=True)


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
