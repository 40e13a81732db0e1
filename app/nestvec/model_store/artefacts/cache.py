"""The artefact cache: exported graphs and their probes, in folders named by fingerprint.

A folder is made under a temporary name, flushed and renamed, so it is whole or absent; its manifest lists
every file's size, and one that does not match is made anew.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.types import FloatArray
from nestvec.errors import ArtefactError
from nestvec.model_store.cache_files import (
    atomic_cache_write,
    cache_writes,
    ensure_dir,
    rename_into_place,
    sync_tree,
)
from nestvec.system.json_files import load_json

MANIFEST: Final = "manifest.json"
PROBES: Final = "probes.npy"
PACKED_PREFIX: Final = "packed-"  # of folders beside the graph: copies of it for a machine
# Raise it when graphs change without changing vectors: artefacts of before are made anew, in the same space.
FORMAT: Final = 4
# The same for graphs for GPUs, whose artefacts have folders of their own.
DEVICE_FORMAT: Final = 4


@dataclass(frozen=True, slots=True)
class Artefact:
    """A finished folder of the cache.

    Attributes:
        folder: Holds the graph, its weights and the head.
        probes: Vectors of the probe texts, [P, H], float32.
        created_s: Unix time at which it was built.
    """

    folder: Path
    probes: FloatArray
    created_s: int


def find_artefact(cache_dir: Path, space: str, format_number: int = FORMAT) -> Artefact | None:
    """Find the artefact of a space; None where there is none that is whole and of this format."""
    folder = _folder(cache_dir, space)
    try:
        manifest = load_json((folder / MANIFEST).read_text("utf-8"))
        if manifest.get("format", 1) != format_number:
            return None
        files = dict(manifest["files"])
        if any((folder / name).stat().st_size != size for name, size in files.items()):
            return None
        probes = np.load(folder / PROBES, allow_pickle=False)
        return Artefact(folder, probes, int(manifest["created_s"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def make_artefact(
    cache_dir: Path,
    space: str,
    build_artefact: Callable[[Path], FloatArray],
    format_number: int = FORMAT,
) -> Artefact:
    """Build the artefact of a space under a temporary name, and rename it once it is whole.

    Args:
        cache_dir: The cache.
        space: Its fingerprint.
        build_artefact: Writes the graph into the folder given and returns the vectors of the probe texts.
        format_number: The format that it is written in.

    Raises:
        ArtefactError: The cache cannot be written, or what was written cannot be read back.
    """
    target = _folder(cache_dir, space)
    with (
        cache_writes(cache_dir),
        tempfile.TemporaryDirectory(dir=ensure_dir(target.parent), prefix=".export-") as scratch,
    ):
        folder = ensure_dir(Path(scratch) / "artefact")
        probes = build_artefact(folder)
        np.save(folder / PROBES, probes)
        sizes = {p.name: p.stat().st_size for p in sorted(folder.iterdir())}
        manifest = {
            "format": format_number,
            "space": space,
            "created_s": int(time.time()),
            "files": sizes,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
        sync_tree(folder)
        if target.is_dir() and find_artefact(cache_dir, space, format_number) is None:
            # Damaged, or of an older format: it would be in the way of the rename. What users put beside it stays.
            _keep_additions(target, folder)
            shutil.rmtree(target)
        rename_into_place(folder, target)
    artefact = find_artefact(cache_dir, space, format_number)
    if artefact is None:
        raise ArtefactError(f"{target}: written but not readable")
    return artefact


def record_refusal(cache_dir: Path, key: str, machine: str, reason: str) -> None:
    """Remember that an artefact cannot be built for a machine, so that no start tries again."""
    path = _refusal(cache_dir, key)
    with suppress(OSError, ArtefactError):  # a read-only cache: the next start tries again
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"machine": machine, "reason": reason})
        with atomic_cache_write(path) as file:
            file.write(content.encode())


def find_refusal(cache_dir: Path, key: str, machine: str) -> str | None:
    """Return why an artefact could not be built for this machine; None where it could, or nobody tried."""
    path = _refusal(cache_dir, key)
    try:
        refusal = load_json(path.read_text("utf-8"))
        if refusal["machine"] != machine:
            return None
        return f"{refusal['reason']} (found at an earlier start; remove {path} to try again)"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refusal(cache_dir: Path, key: str) -> Path:
    return cache_dir / "artefacts" / f"{key}.refused.json"


def _keep_additions(old: Path, new: Path) -> None:
    """Move what was added to an old artefact later (tuning, calibration, maps, quality) to the new one.

    Copies of the old graph are not moved, and nothing is where the old manifest cannot be read.
    """
    try:
        built_files = {MANIFEST, *load_json((old / MANIFEST).read_text("utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return
    for path in old.iterdir():
        is_copy = path.name.startswith(PACKED_PREFIX)
        if path.name not in built_files and not is_copy and not (new / path.name).exists():
            path.rename(new / path.name)


def _folder(cache_dir: Path, space: str) -> Path:
    return cache_dir / "artefacts" / space
