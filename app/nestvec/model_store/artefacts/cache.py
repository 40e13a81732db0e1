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
from nestvec.model_store.sources.disk import (
    cache_writes,
    made,
    put_file,
    rename_into_place,
    sync_tree,
)
from nestvec.system.json_text import load_json

MANIFEST: Final = "manifest.json"
PROBES: Final = "probes.npy"
# Raise it when graphs change without changing vectors: artefacts of before are made anew, in the same space.
FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class Artefact:
    """A finished folder of the cache.

    Attributes:
        probes: Vectors of the probe texts, (P, H), float32.
        created_s: Unix time.
    """

    folder: Path
    probes: FloatArray
    created_s: int


def find_artefact(cache_dir: Path, space: str) -> Artefact | None:
    """The artefact of a space, or None where there is none that is whole."""
    folder = _folder(cache_dir, space)
    try:
        manifest = load_json((folder / MANIFEST).read_text("utf-8"))
        if manifest.get("format", 1) != FORMAT:
            return None
        files = dict(manifest["files"])
        if any((folder / name).stat().st_size != size for name, size in files.items()):
            return None
        probes = np.load(folder / PROBES, allow_pickle=False)
        return Artefact(folder, probes, int(manifest["created_s"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def make_artefact(cache_dir: Path, space: str, fill: Callable[[Path], FloatArray]) -> Artefact:
    """Make the artefact of a space.

    Args:
        cache_dir: The cache.
        space: Its fingerprint.
        fill: Writes the graph into the folder given and returns the probes' vectors.

    Raises:
        ArtefactError: The cache cannot be written, or what was written cannot be read back.
    """
    target = _folder(cache_dir, space)
    with (
        cache_writes(cache_dir),
        tempfile.TemporaryDirectory(dir=made(target.parent), prefix=".export-") as scratch,
    ):
        folder = made(Path(scratch) / "artefact")
        probes = fill(folder)
        np.save(folder / PROBES, probes)
        sizes = {p.name: p.stat().st_size for p in sorted(folder.iterdir())}
        manifest = {
            "format": FORMAT,
            "space": space,
            "created_s": int(time.time()),
            "files": sizes,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
        sync_tree(folder)
        if target.is_dir() and find_artefact(cache_dir, space) is None:
            # Damaged, or of an older format: it would be in the way of the rename. What users put beside it stays.
            _keep_additions(target, folder)
            shutil.rmtree(target)
        rename_into_place(folder, target)
    artefact = find_artefact(cache_dir, space)
    if artefact is None:
        raise ArtefactError(f"{target}: written but not readable")
    return artefact


def note_refusal(cache_dir: Path, key: str, machine: str, reason: str) -> None:
    """Remember that an artefact cannot be made for a machine, so that no start tries again."""
    path = _refusal(cache_dir, key)
    with suppress(OSError, ArtefactError):  # a read-only cache: the next start tries again
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"machine": machine, "reason": reason})
        put_file(path, lambda file: file.write(content.encode()))


def refusal_of(cache_dir: Path, key: str, machine: str) -> str | None:
    """Why an artefact was not made for this machine; None where it was, or nobody tried."""
    try:
        said = load_json(_refusal(cache_dir, key).read_text("utf-8"))
        if said["machine"] != machine:
            return None
        path = _refusal(cache_dir, key)
        return f"{said['reason']} (found at an earlier start; remove {path} to try again)"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refusal(cache_dir: Path, key: str) -> Path:
    return cache_dir / "artefacts" / f"{key}.refused.json"


def _keep_additions(old: Path, new: Path) -> None:
    """Carry over what was found later: tuning, calibration, maps, quality; if its manifest can be read."""
    try:
        made_then = {MANIFEST, *load_json((old / MANIFEST).read_text("utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return
    for path in old.iterdir():
        if path.name not in made_then and not (new / path.name).exists():
            path.rename(new / path.name)


def _folder(cache_dir: Path, space: str) -> Path:
    return cache_dir / "artefacts" / space
