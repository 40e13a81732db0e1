"""Contents of files and parts of batches: immutable objects by name, in a folder or in an object store.

An object is written as a local draft first and is there whole or not at all: a folder takes it over by a rename, an
object store by one (multipart) upload. It never changes afterwards, so replicas need no locks to read it.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from nestvec.errors import ConfigError, StoreError
from nestvec.system.durable_files import sync, sync_folder
from nestvec.system.extras import how_to_install

if TYPE_CHECKING:
    import obstore

PIECE_BYTES: Final = 256 * 1024
# One attempt at an object store, and all attempts together: a batch waits and tries again behind them.
REQUEST_TIMEOUT: Final = timedelta(seconds=30)
RETRY_TIMEOUT: Final = timedelta(seconds=60)
MAX_RETRIES: Final = 5
FOLDER_SCHEME: Final = "file://"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it.

    Attributes:
        name: Its name, parts of which are separated by "/".
        size_bytes: Size of its content.
        changed_s: Unix time at which it was stored.
    """

    name: str
    size_bytes: int
    changed_s: float


class ObjectStore(Protocol):
    """Where contents are kept. Its methods may be called from any thread, and wait for the disk or the network."""

    def put(self, name: str, draft: Path) -> None:
        """Take over a local file as an object; the file is gone afterwards.

        Raises:
            StoreError: The store cannot take it now; the file is still there.
        """

    def read(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Read an object in pieces.

        Args:
            name: Its name.
            start: The first byte.
            end: The byte behind the last one; None for the end of the object.

        Raises:
            StoreError: There is no such object, or the store cannot be reached.
        """

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None where there is none.

        Raises:
            StoreError: The store cannot be reached.
        """

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are gone already are passed over.

        Raises:
            StoreError: The store cannot be reached.
        """

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """List the objects whose names begin with a prefix and a "/".

        Raises:
            StoreError: The store cannot be reached.
        """

    def local_path(self, name: str) -> Path | None:
        """Return where an object lies as a local file; None in a store that has no local files."""


class FolderObjects:
    """Objects in a local folder, readable by its owner only.

    Args:
        folder: Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, draft: Path) -> None:
        """Take over a local file as an object, which survives a power cut afterwards."""
        path = self._folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with draft.open("rb+") as file:
                sync(file)
            draft.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise _disk_error(error) from error

    def read(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Read an object in pieces."""
        try:
            with (self._folder / name).open("rb") as file:
                file.seek(start)
                left = None if end is None else end - start
                while left is None or left > 0:
                    piece = file.read(PIECE_BYTES if left is None else min(PIECE_BYTES, left))
                    if not piece:
                        return
                    left = None if left is None else left - len(piece)
                    yield piece
        except OSError as error:
            raise _disk_error(error) from error

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None where there is none."""
        try:
            return (self._folder / name).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _disk_error(error) from error

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, and the folders that become empty."""
        try:
            for name in names:
                path = self._folder / name
                path.unlink(missing_ok=True)
                if path.parent.parent != self._folder:
                    # Of several parts only the last one empties the folder.
                    with suppress(OSError):
                        path.parent.rmdir()
        except OSError as error:
            raise _disk_error(error) from error

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """List the objects whose names begin with a prefix and a "/"."""
        for folder, _, files in os.walk(self._folder / prefix):
            for file in files:
                path = Path(folder, file)
                # It may have been deleted since the folder was read.
                with suppress(FileNotFoundError):
                    status = path.stat()
                    name = path.relative_to(self._folder).as_posix()
                    yield StoredObject(name, status.st_size, status.st_ctime)

    def local_path(self, name: str) -> Path | None:
        """Return where an object lies."""
        return self._folder / name


class RemoteObjects:
    """Objects in S3, Google Cloud Storage, Azure, or the memory of this process, by obstore.

    Access keys and endpoints come from the environment variables of those services (AWS_…, GOOGLE_…, AZURE_…).

    Args:
        url: `s3://bucket/prefix`, `gs://…`, `az://account/container/prefix` or `memory:///`.

    Raises:
        ConfigError: The URL is none that obstore knows, or obstore is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise ConfigError(
                [f"files_url: object stores need obstore: {how_to_install('objects')}"]
            ) from error
        self._obstore: Any = obstore
        self._errors: type[Exception] = BaseError
        try:
            self._store: Any = from_url(url, **_client_options(url))
        except (BaseError, ValueError, TypeError) as error:
            raise ConfigError(
                ["files_url: no object store has this URL; use s3://, gs://, az:// or memory:///"]
            ) from error

    def put(self, name: str, draft: Path) -> None:
        """Upload a local file as an object, in several parts where it is large, and delete the file."""
        with self._translated():
            self._obstore.put(self._store, name, draft)
        draft.unlink(missing_ok=True)

    def read(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Read an object in pieces."""
        with self._translated():
            if end is not None and end <= start:
                return
            wanted = {"offset": start} if end is None else (start, end)
            result: obstore.GetResult = self._obstore.get(
                self._store, name, options={"range": wanted} if start or end is not None else {}
            )
            for piece in result.stream(min_chunk_size=PIECE_BYTES):
                yield bytes(piece)

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None where there is none."""
        try:
            with self._translated():
                return int(self._obstore.head(self._store, name)["size"])
        except MissingObjectError:
            return None

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects."""
        paths = list(names)
        if not paths:
            return
        with suppress(MissingObjectError), self._translated():
            self._obstore.delete(self._store, paths)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """List the objects whose names begin with a prefix and a "/"."""
        with self._translated():
            for rows in self._obstore.list(self._store, prefix):
                for row in rows:
                    yield StoredObject(row["path"], row["size"], row["last_modified"].timestamp())

    def local_path(self, name: str) -> Path | None:
        """Return None: nothing lies on this machine."""
        return None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn obstore's errors into ours; their messages stay out, since they may hold credentials.

        Raises:
            MissingObjectError: There is no such object.
            StoreError: Something else went wrong.
        """
        try:
            yield
        except FileNotFoundError as error:
            raise MissingObjectError("The object store has no such object.") from error
        except self._errors as error:
            kind = type(error).__name__
            if kind == "NotFoundError":
                raise MissingObjectError("The object store has no such object.") from None
            raise StoreError(f"The object store failed ({kind}).") from None
        except OSError as error:
            raise _disk_error(error) from error


class MissingObjectError(StoreError):
    """There is no object of that name."""


@contextmanager
def object_draft(folder: Path) -> Iterator[IO[bytes]]:
    """Open a local draft that `ObjectStore.put` can take over; it is deleted with the block where that was not done.

    Args:
        folder: Where drafts lie; on the disk of the objects' folder, so that a rename is enough.

    Raises:
        StoreError: The disk is full or read-only.
    """
    path = folder / f".draft-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600, exist_ok=False)
        with path.open("r+b", buffering=PIECE_BYTES) as file:
            yield file
    except OSError as error:
        raise _disk_error(error) from error
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def open_objects(url: str, folder: Path) -> ObjectStore:
    """Open the store of objects that a URL names.

    Args:
        url: "" for the folder; else as for `RemoteObjects`, or `file:///path`.
        folder: Where objects lie by default.

    Raises:
        ConfigError: The URL is none that is known here, or the extra is not installed.
    """
    if not url:
        return FolderObjects(folder)
    if url.startswith(FOLDER_SCHEME):
        return FolderObjects(Path(url.removeprefix(FOLDER_SCHEME)))
    return RemoteObjects(url)


def _client_options(url: str) -> dict[str, Any]:
    """Timeouts and retries of the client of a store that is reached over a network."""
    if url.startswith("memory:"):
        return {}
    # Stores on the same machine or cluster often speak plain HTTP.
    is_plain = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", "")).startswith(
        "http:"
    )
    return {
        "client_options": {"timeout": REQUEST_TIMEOUT, "allow_http": is_plain},
        "retry_config": {"max_retries": MAX_RETRIES, "retry_timeout": RETRY_TIMEOUT},
    }


def _disk_error(error: OSError) -> StoreError:
    if isinstance(error, FileNotFoundError):
        return MissingObjectError("The store has no such object.")
    return StoreError(f"The server's disk failed: {error.strerror}.")
