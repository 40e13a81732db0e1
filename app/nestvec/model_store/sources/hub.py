"""Models of the Hub: which files of a repository are fetched, and what is checked of them."""

import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nestvec.errors import NestvecError, SourceError
from nestvec.model_store.cache_files import cache_writes, ensure_dir
from nestvec.model_store.preparation import PreparationListener, Step
from nestvec.model_store.sources.card import CardSource
from nestvec.model_store.sources.hashes import file_sha256
from nestvec.system.durable_files import atomic_write
from nestvec.system.json_files import load_json

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

log = logging.getLogger(__name__)

# Errors of the library's HTTP client, which is another one in each of its major versions, where nothing answers.
UNREACHABLE: Final = frozenset(
    (
        "TransportError",
        "ConnectionError",
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "Timeout",
    )
)


def fetch_hub(
    source: CardSource,
    cache_dir: Path,
    listener: PreparationListener,
    *,
    is_offline: bool,
    refresh: bool,
    reads_pickles: bool,
) -> tuple[Path, str]:
    """Get a Hub snapshot of just the files that we read.

    A finished pull is recorded, so that later starts need no network and a served model never changes by
    itself: `nestvec model pull` asks the Hub again.

    Returns:
        Folder and commit.
    """
    known = None if refresh else find_pull(source, cache_dir, is_offline=is_offline)
    if known is not None:
        return known
    if is_offline:
        raise _absent(source, cache_dir)
    log.info("fetching %s from the Hub, once", source.name)
    with listener.step(Step.FETCH):
        folder, commit = _download_hub(source, cache_dir / "hub", reads_pickles=reads_pickles)
    with cache_writes(cache_dir):
        record = _record_of(source, cache_dir)
        ensure_dir(record.parent)
        with atomic_write(record) as file:
            file.write(json.dumps({"folder": str(folder), "commit": commit}).encode())
    return folder, commit


def find_pull(source: CardSource, cache_dir: Path, *, is_offline: bool) -> tuple[Path, str] | None:
    """Find a finished pull: folder and commit; None where there was none.

    Raises:
        SourceError: There was none, and the network must not be used.
    """
    known = _read_record(_record_of(source, cache_dir))
    if known is None and is_offline:
        raise _absent(source, cache_dir)
    return known


def _absent(source: CardSource, cache_dir: Path) -> SourceError:
    return SourceError(
        f"{source.name} is not in {cache_dir} and offline is set; run "
        f"`nestvec model pull {source.name}` where there is a network and bring the cache folder"
    )


def _record_of(source: CardSource, cache_dir: Path) -> Path:
    """The file that notes a finished pull."""
    slug = f"{source.name.replace('/', '--')}@{source.version or 'default'}"
    return cache_dir / "sources" / "hub" / f"{slug.replace('/', '_')}.json"


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
    # Imported here: a warm start or a PyPI model never needs it; what chooses files knows every family.
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from nestvec.export.graph.own_graph import ONNX_PATHS
    from nestvec.model_store.sources.hub_files import external_files, large_files, small_files

    if not sys.stderr.isatty():  # on a terminal the library shows size and rate of each file
        disable_progress_bars()

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
        hint = _hint(error, source.name)
        raise SourceError(f"the Hub did not give {source.name}: {reason}{hint}") from error
    _verify_pull(source.name, folder, info)
    return folder, str(info.sha)


def _hint(error: Exception, name: str) -> str:
    """Say what may help against an error of the Hub's library."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "; accept its terms on its page, and set HF_TOKEN to a token of yours"
    if isinstance(error, RepositoryNotFoundError):
        return "; check the name; a private repository needs HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "; check the revision"
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if not kinds & UNREACHABLE:
        return ""
    return (
        f"; is there a network? HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy; without one, run "
        f"`nestvec model pull {name}` where there is a network, bring the cache folder, and set offline"
    )


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
