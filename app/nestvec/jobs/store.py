"""Keeps files and batches: their rows in a database, their contents beside it or in an object store."""

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from nestvec.errors import ConfigError, StoreError
from nestvec.jobs.batch_records import LEASE_S, BatchRecords
from nestvec.jobs.database import begin_writing, make_engine, open_database
from nestvec.jobs.file_records import ABANDONED_S, FileRecords
from nestvec.jobs.folder_lock import lock_folder
from nestvec.jobs.objects import open_objects
from nestvec.jobs.tables import batches, files, uploads
from nestvec.system.sql_engines import is_shared

DATABASE: Final = "jobs.db"
FILES: Final = "files"
PARTS: Final = "parts"
DRAFTS: Final = "drafts"
UPLOAD_PREFIX: Final = "upload-"


def new_id(prefix: str) -> str:
    """Make an id that nobody can guess."""
    return f"{prefix}{secrets.token_hex(16)}"


def check_store_urls(database_url: str, files_url: str) -> None:
    """Check that a store with these URLs could be opened, without reaching for it.

    Raises:
        ConfigError: A URL is not one that is known here, or an extra is not installed.
    """
    if database_url:
        make_engine(database_url).dispose()
    open_objects(files_url, Path())


class JobStore(FileRecords, BatchRecords):
    """Files and batches of all keys.

    Calls block: those of rows for a few milliseconds, those of contents for as long as the disk or the object store
    takes. A caller on an event loop puts them in a thread.

    Args:
        folder: The data folder, made where it is absent.
        clock: Gives Unix time in seconds.
        database_url: A database that several servers share; "" for one in the data folder.
        files_url: An object store for contents; "" for the data folder.
        is_shared: Whether several processes use the folder; the one that started them then holds its lock.
        lease_s: How long a runner may be silent before others take over what it holds.

    Attributes:
        folder: The data folder.
        objects: Contents of files and parts.

    Raises:
        ConfigError: A URL is not one that is known here, or an extra is not installed.
        StoreError: Another process owns the folder, or it cannot be written or read, or the database cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float],
        *,
        database_url: str = "",
        files_url: str = "",
        is_shared: bool = False,
        lease_s: float = LEASE_S,
    ) -> None:
        self.folder = folder
        self.objects = open_objects(files_url, folder)
        self._opened_s = time.time()
        self._lock = None if is_shared else lock_folder(folder)
        try:
            # They hold texts of callers, which nobody else on the machine need read.
            for private in (folder / FILES, folder / PARTS, self.drafts_folder):
                private.mkdir(parents=True, exist_ok=True)
                private.chmod(0o700)
            if not database_url:
                (folder / DATABASE).touch(mode=0o600)
            self._delete_old_drafts()
        except OSError as error:
            self._unlock()
            raise StoreError(f"{folder}: cannot be written ({error.strerror})") from error
        try:
            engine = open_database(database_url or f"sqlite:///{folder / DATABASE}")
        except (StoreError, ConfigError):
            self._unlock()
            raise
        super().__init__(engine, clock, lease_s=lease_s)

    @property
    def drafts_folder(self) -> Path:
        """Folder of files that are being written."""
        return self.folder / DRAFTS

    @property
    def has_other_servers(self) -> bool:
        """Whether runners of other servers may be at work on the same batches."""
        return is_shared(self._engine)

    def content_name(self, file_id: str) -> str:
        """Name of the object that is a file's content."""
        return f"{FILES}/{file_id}"

    def upload_path(self) -> Path:
        """A new path for an upload that is being received."""
        return self.drafts_folder / new_id(UPLOAD_PREFIX)

    def delete_content(self, file_id: str) -> None:
        """Delete the content of a file.

        Raises:
            StoreError: The disk or the object store failed.
        """
        self.objects.delete([self.content_name(file_id)])

    def sweep_rows(self) -> tuple[set[str], set[str]]:
        """Delete the rows of files that have expired.

        Returns:
            Ids of the files that were deleted, and of files and batches whose contents must stay.

        Raises:
            StoreError: The database failed.
        """
        gone, known = self.forget_expired()
        return gone, known | self.unended_ids()

    def sweep_contents(self, gone: set[str], known: set[str]) -> None:
        """Delete contents that nothing knows.

        Args:
            gone: Ids of files that were deleted.
            known: Ids of files and batches whose contents must stay.

        Raises:
            StoreError: The disk or the object store failed.
        """
        abandoned = [self.content_name(file_id) for file_id in gone]
        for folder in (FILES, PARTS):
            for stored in self.objects.list(folder):
                # files/ID, parts/BATCH/PART, or parts/BATCH.output of a version without chunks
                key = stored.name.split("/")[1].split(".")[0]
                if key not in known and self._is_old(stored.changed_s):
                    abandoned.append(stored.name)
        self.objects.delete(abandoned)

    def _is_old(self, changed_s: float) -> bool:
        """Whether no process can be about to note in a row what was stored at a time."""
        if self._lock is not None and not self.has_other_servers and changed_s < self._opened_s:
            return True
        return time.time() - changed_s > ABANDONED_S

    def _delete_old_drafts(self) -> None:
        """Delete what a crash cut short, here and where earlier versions put it."""
        old = [*self.drafts_folder.iterdir(), *(self.folder / PARTS).glob(f"{UPLOAD_PREFIX}*")]
        for draft in old:
            if self._is_old_draft(draft):
                draft.unlink(missing_ok=True)

    def _is_old_draft(self, draft: Path) -> bool:
        with suppress(FileNotFoundError):
            return self._lock is not None or time.time() - draft.stat().st_mtime > ABANDONED_S
        return False

    def take_over(self, ids: Mapping[str, str]) -> None:
        """Give what keys have stored under earlier ids to their present ones.

        Args:
            ids: Present ids by earlier ones.

        Raises:
            StoreError: The database failed.
        """
        if not ids:
            return
        with begin_writing(self._engine) as connection:
            for table in (files, batches, uploads):
                for earlier, present in ids.items():
                    of_earlier = sa.update(table).where(table.c.owner == earlier)
                    connection.execute(of_earlier.values(owner=present))

    def close(self) -> None:
        """Close the database, and unlock the folder."""
        self._engine.dispose()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
