"""What the cache folder holds: fetched files and exported graphs, of which model, how large, and when last used."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from nestvec.model_store.artefacts.cache import find_artefact
from nestvec.model_store.artefacts.made_of import read_made_of
from nestvec.model_store.cache_files import cache_writes
from nestvec.model_store.sources.card import Card
from nestvec.system.json_files import load_json

# Drafts of a process that was killed have such names; those of one that still works are younger.
DRAFTS: Final = (".export-*", ".pull-*", ".merge-*")
DRAFT_AGE_S: Final = 6 * 3600.0
DAY_S: Final = 86_400.0


class CacheKind(StrEnum):
    """What an entry of the cache is."""

    FILES = "files"  # as they were fetched
    EXPORT = "export"  # a graph, its weights and what was measured of it
    MERGED = "merged"  # a model with an adapter merged in
    LEFTOVER = "leftover"  # of no use: a draft of a killed process, or an export that is damaged or of an old format


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Something in the cache that can be removed by itself.

    Attributes:
        kind: What it is.
        name: Name of the model; that of the folder where the model is not known.
        detail: Where files came from, or an export's precision.
        paths: Its folders and files.
        size_bytes: What they take on the disk.
        used_s: Unix time at which it was last used, as far as that is known.
    """

    kind: CacheKind
    name: str
    detail: str
    paths: tuple[Path, ...]
    size_bytes: int
    used_s: float

    def holds(self, path: Path) -> bool:
        """Return whether a path is one of its own or inside of one."""
        return any(path == own or own in path.parents for own in self.paths)

    def unused_days(self, now_s: float) -> float:
        """Return for how many days nothing has used it."""
        return max(0.0, now_s - self.used_s) / DAY_S


def list_cache(cache_dir: Path) -> list[CacheEntry]:
    """List what the cache holds, the largest first; an empty list where there is no cache."""
    exports = list(_exports(cache_dir))
    used_by_files = [
        (Path(made_of["files"]), entry)
        for entry in exports
        if (made_of := read_made_of(entry.paths[0])) is not None
    ]
    fetched = [
        _used_with(entry, used_by_files)
        for entry in (*_wheels(cache_dir), *_hub(cache_dir), *_merged(cache_dir))
    ]
    return sorted([*fetched, *exports, *_drafts(cache_dir)], key=lambda entry: -entry.size_bytes)


def entries_of(card: Card, entries: Iterable[CacheEntry]) -> list[CacheEntry]:
    """Return what the cache has of a card's model: its files and its exports."""
    return [
        entry
        for entry in entries
        if entry.name in (card.name, *card.aliases) or _is_source_of(card, entry)
    ]


def remove_entry(entry: CacheEntry, cache_dir: Path) -> None:
    """Remove an entry from the disk. A server that has it open goes on with what it has in memory or mapped.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    with cache_writes(cache_dir):
        for path in entry.paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _is_source_of(card: Card, entry: CacheEntry) -> bool:
    source = card.source
    if entry.kind is not CacheKind.FILES:
        return False
    if source.kind == "pypi":
        return entry.detail == f"pypi {source.name}=={source.version}"
    return source.kind == "hub" and entry.name == source.name


def _exports(cache_dir: Path) -> Iterator[CacheEntry]:
    """The folders of exported graphs, whole ones and those of no use."""
    for folder in _folders(cache_dir / "artefacts"):
        made_of = read_made_of(folder) or {}
        is_whole = find_artefact(cache_dir, folder.name) is not None
        yield CacheEntry(
            kind=CacheKind.EXPORT if is_whole else CacheKind.LEFTOVER,
            name=str(made_of.get("model", folder.name)),
            detail=str(made_of.get("precision", "")),
            paths=(folder,),
            size_bytes=_size_bytes(folder),
            used_s=max(_changed_s(folder), *(_changed_s(path) for path in folder.iterdir()), 0.0),
        )


def _wheels(cache_dir: Path) -> Iterator[CacheEntry]:
    """The folders that were unpacked from wheels."""
    for folder in _folders(cache_dir / "sources"):
        name, _, version = folder.name.rpartition("-")
        if not name:
            continue
        yield CacheEntry(
            kind=CacheKind.FILES,
            name=folder.name,
            detail=f"pypi {name}=={version}",
            paths=(folder,),
            size_bytes=_size_bytes(folder),
            used_s=_changed_s(folder),
        )


def _hub(cache_dir: Path) -> Iterator[CacheEntry]:
    """The repositories of the Hub's library, each with the records of finished pulls."""
    records = [
        (record, Path(str(known.get("folder", ""))))
        for record in sorted((cache_dir / "sources" / "hub").glob("*.json"))
        if (known := _read_json(record)) is not None
    ]
    for folder in _folders(cache_dir / "hub"):
        if not folder.name.startswith("models--"):
            continue
        own = tuple(record for record, target in records if folder in target.parents)
        name = folder.name.removeprefix("models--").replace("--", "/")
        yield CacheEntry(
            kind=CacheKind.FILES,
            name=name,
            detail=f"hub {name}",
            paths=(folder, *own),
            size_bytes=_size_bytes(folder),
            used_s=_changed_s(folder),
        )


def _merged(cache_dir: Path) -> Iterator[CacheEntry]:
    """The models that have an adapter merged in."""
    for folder in _folders(cache_dir / "merged"):
        yield CacheEntry(
            kind=CacheKind.MERGED,
            name=folder.name,
            detail="adapter merged",
            paths=(folder,),
            size_bytes=_size_bytes(folder),
            used_s=_changed_s(folder),
        )


def _drafts(cache_dir: Path) -> Iterator[CacheEntry]:
    """The drafts that killed processes left behind."""
    for kind in ("artefacts", "sources", "merged"):
        for pattern in DRAFTS:
            for folder in sorted((cache_dir / kind).glob(pattern)):
                changed_s = _changed_s(folder)
                if time.time() - changed_s > DRAFT_AGE_S:
                    size_bytes = _size_bytes(folder)
                    yield CacheEntry(
                        CacheKind.LEFTOVER, folder.name, "draft", (folder,), size_bytes, changed_s
                    )


def _used_with(entry: CacheEntry, used_by_files: list[tuple[Path, CacheEntry]]) -> CacheEntry:
    """Return an entry of files as used when the newest of its exports was; each start reads both."""
    used = [export.used_s for files, export in used_by_files if entry.holds(files)]
    return replace(entry, used_s=max([entry.used_s, *used]))


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [path for path in sorted(parent.iterdir()) if path.is_dir() and path.name[0] != "."]


def _size_bytes(folder: Path) -> int:
    """Return what a folder takes; links count nothing, as what they point to is counted where it lies."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                stat = os.stat(os.path.join(parent, name), follow_symlinks=False)  # noqa: PTH116, PTH118 - many files
            except OSError:
                continue  # another process removed it meanwhile
            total += stat.st_size
    return total


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = load_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
