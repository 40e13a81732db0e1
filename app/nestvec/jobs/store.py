"""Keeps files and batches: SQLite in WAL mode, and the contents of files beside it. One server owns the folder."""

import fcntl
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final

import sqlalchemy as sa

from nestvec.errors import InputError, NotFoundError, QuotaError, StoreError
from nestvec.jobs.database import open_database
from nestvec.jobs.tables import batch_of, batches, columns_of, file_of, files
from nestvec.jobs.types import ENDED, BatchJob, Status, StoredFile
from nestvec.system.durable_files import sync
from nestvec.system.private_files import make_private_folder, open_private

DATABASE: Final = "jobs.db"
UPLOAD_PREFIX: Final = "upload-"
# Nobody works on a file for so long without touching it.
ABANDONED_S: Final = 3600.0


def new_id(prefix: str) -> str:
    """Make an id that nobody can guess."""
    return f"{prefix}{secrets.token_hex(16)}"


def lock_folder(folder: Path) -> IO[bytes]:
    """Lock a data folder, which is made where it is absent, until the file that is returned is closed.

    Raises:
        StoreError: Another process owns the folder, or it cannot be written.
    """
    try:
        make_private_folder(folder)
        lock = open_private(folder / "lock")
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StoreError(f"{folder}: another process uses this data folder") from None
    return lock


class JobStore:
    """Files and batches of all keys.

    Calls block for a few milliseconds; a caller on an event loop puts them in a thread.

    Args:
        folder: The data folder, made where it is absent.
        clock: Gives Unix time in seconds.
        is_shared: Whether several processes use the folder; the one that started them then holds its lock.

    Raises:
        StoreError: Another process owns the folder, or it cannot be written or read.
    """

    def __init__(
        self, folder: Path, clock: Callable[[], float], *, is_shared: bool = False
    ) -> None:
        self._clock = clock
        self.folder = folder
        self._lock = None if is_shared else lock_folder(folder)
        try:
            # They hold texts of callers, which nobody else on the machine need read.
            for private in (self.files_folder, self.parts_folder):
                private.mkdir(parents=True, exist_ok=True)
                private.chmod(0o700)
            (folder / DATABASE).touch(mode=0o600)
            # Uploads that a crash cut short; another process may still be writing a recent one.
            for upload in self.parts_folder.glob(f"{UPLOAD_PREFIX}*"):
                if not is_shared or clock() - upload.stat().st_mtime > ABANDONED_S:
                    upload.unlink(missing_ok=True)
        except OSError as error:
            self._unlock()
            raise StoreError(f"{folder}: cannot be written ({error.strerror})") from error
        try:
            self._engine = open_database(folder / DATABASE)
        except StoreError:
            self._unlock()
            raise

    @property
    def files_folder(self) -> Path:
        """Folder of the contents of files, which are named by their ids."""
        return self.folder / "files"

    @property
    def parts_folder(self) -> Path:
        """Folder of files that are being written."""
        return self.folder / "parts"

    def content_path(self, file_id: str) -> Path:
        """Path of a file's content."""
        return self.files_folder / file_id

    def part_path(self, batch: BatchJob, kind: str) -> Path:
        """Path at which the "output" or the "errors" of a batch are collected."""
        return self.parts_folder / f"{batch.id}.{kind}"

    def upload_path(self) -> Path:
        """A new path for an upload that is being received."""
        return self.parts_folder / new_id(UPLOAD_PREFIX)

    def now(self) -> int:
        """Unix time in whole seconds."""
        return int(self._clock())

    def close(self) -> None:
        """Close the database, and unlock the folder."""
        self._engine.dispose()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def take_over(self, ids: Mapping[str, str]) -> None:
        """Give what keys have stored under earlier ids to their present ones.

        Args:
            ids: Present ids by earlier ones.
        """
        with self._engine.begin() as connection:
            for table in (files, batches):
                for earlier, present in ids.items():
                    of_earlier = sa.update(table).where(table.c.owner == earlier)
                    connection.execute(of_earlier.values(owner=present))

    # Files

    def stored_bytes(self, owner: str) -> int:
        """Size of all files of a key, in bytes."""
        query = sa.select(sa.func.coalesce(sa.func.sum(files.c.size_bytes), 0))
        with self._engine.connect() as connection:
            return int(connection.execute(query.where(files.c.owner == owner)).scalar_one())

    def add_file(self, file: StoredFile, content: Path, max_stored_bytes: int) -> None:
        """Take over a finished upload.

        Args:
            file: What is noted of it.
            content: Path of its content, which is moved to where contents lie.
            max_stored_bytes: Size that all files of the owner may have together.

        Raises:
            QuotaError: The owner's files would be too large.
            OSError: The disk is full or read-only.
        """
        if self.stored_bytes(file.owner) + file.size_bytes > max_stored_bytes:
            raise QuotaError(
                f"Your files would take over {max_stored_bytes} bytes; delete some first.",
                param="file",
            )
        with content.open("rb") as upload:
            sync(upload)
        content.replace(self.content_path(file.id))
        with self._engine.begin() as connection:
            connection.execute(files.insert().values(asdict(file)))

    def file(self, file_id: str, owner: str) -> StoredFile:
        """Find a file of a key.

        Raises:
            NotFoundError: The key has no file of that id, or it has expired.
        """
        query = sa.select(files).where(files.c.id == file_id, files.c.owner == owner)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        if row is None or (row["expires_s"] is not None and row["expires_s"] <= self.now()):
            raise NotFoundError(f"No such File object: {file_id[:100]}", param="id")
        return file_of(row)

    def list_files(
        self, owner: str, *, after: str | None, limit: int, purpose: str | None, is_ascending: bool
    ) -> tuple[list[StoredFile], bool]:
        """List files of a key.

        Args:
            owner: Id of the key.
            after: Id of the file behind which the list begins; None begins with the first.
            limit: How many files are listed.
            purpose: Lists files of this purpose only; None lists all.
            is_ascending: Whether the oldest come first.

        Returns:
            The files, and whether there are more.

        Raises:
            NotFoundError: `after` is none of the key's files.
        """
        query = sa.select(files).where(
            files.c.owner == owner,
            sa.or_(files.c.expires_s.is_(None), files.c.expires_s > self.now()),
        )
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        rows, has_more = self._page(files, query, owner, after, limit, is_ascending=is_ascending)
        return [file_of(row) for row in rows], has_more

    def delete_file(self, file_id: str, owner: str) -> None:
        """Delete a file.

        Raises:
            NotFoundError: The key has no file of that id.
            InputError: A batch still reads the file.
        """
        self.file(file_id, owner)
        reading = sa.select(batches.c.id).where(
            batches.c.input_file_id == file_id,
            batches.c.status.not_in(ENDED),
        )
        with self._engine.begin() as connection:
            if batch_id := connection.execute(reading).scalar():
                raise InputError(
                    f"the file is being read by {batch_id}; cancel that first", param="id"
                )
            connection.execute(files.delete().where(files.c.id == file_id))
        self.content_path(file_id).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete files that have expired, unless a batch still reads them, and contents without a row after a crash."""
        reading = sa.select(batches.c.input_file_id).where(batches.c.status.not_in(ENDED))
        expired = files.delete().where(files.c.expires_s <= self.now(), files.c.id.not_in(reading))
        with self._engine.begin() as connection:
            connection.execute(expired)
            known = set(connection.execute(sa.select(files.c.id)).scalars())
            outputs = sa.select(batches.c.output_file_id, batches.c.error_file_id).where(
                batches.c.status == Status.FINALIZING.value
            )
            known |= {name for row in connection.execute(outputs) for name in row if name}
        for path in self.files_folder.iterdir():
            # Another process may have written a new one just now, and note it next.
            is_new = (
                self._lock is None
                and path.exists()
                and self._clock() - path.stat().st_ctime < ABANDONED_S
            )
            if path.name not in known and not is_new:
                path.unlink(missing_ok=True)

    # Batches

    def add_batch(self, batch: BatchJob) -> None:
        """Store a new batch."""
        with self._engine.begin() as connection:
            connection.execute(batches.insert().values(columns_of(asdict(batch))))

    def batch(self, batch_id: str, owner: str | None = None) -> BatchJob:
        """Find a batch.

        Args:
            batch_id: Id of the batch.
            owner: Id of the key that it must belong to; None finds any key's.

        Raises:
            NotFoundError: There is no such batch.
        """
        query = sa.select(batches).where(batches.c.id == batch_id)
        if owner is not None:
            query = query.where(batches.c.owner == owner)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFoundError(f"No batch found with id '{batch_id[:100]}'.", param="id")
        return batch_of(row)

    def list_batches(
        self, owner: str, *, after: str | None, limit: int
    ) -> tuple[list[BatchJob], bool]:
        """List batches of a key, newest first.

        Args:
            owner: Id of the key.
            after: Id of the batch behind which the list begins; None begins with the newest.
            limit: How many batches are listed.

        Returns:
            The batches, and whether there are more.

        Raises:
            NotFoundError: `after` is none of the key's batches.
        """
        query = sa.select(batches).where(batches.c.owner == owner)
        rows, has_more = self._page(batches, query, owner, after, limit, is_ascending=False)
        return [batch_of(row) for row in rows], has_more

    def unfinished(self) -> list[BatchJob]:
        """List the batches of all keys that have not ended, oldest first."""
        query = sa.select(batches).where(batches.c.status.not_in(ENDED)).order_by(batches.c.number)
        with self._engine.connect() as connection:
            return [batch_of(row) for row in connection.execute(query).mappings()]

    def update_batch(
        self,
        batch_id: str,
        *,
        only_if: Status | None = None,
        **changes: Any,  # noqa: ANN401 - any column
    ) -> BatchJob:
        """Change a batch, and note when it reached its status.

        Args:
            batch_id: Id of the batch.
            only_if: Change nothing where the batch has another status by now.
            changes: Values by the names of their columns.

        Returns:
            The batch as it is afterwards.
        """
        with self._engine.begin() as connection:
            status = sa.select(batches.c.status).where(batches.c.id == batch_id)
            if only_if is None or connection.execute(status).scalar() == only_if:
                self._update(connection, batch_id, changes)
        return self.batch(batch_id)

    def cancel_batch(self, batch_id: str, owner: str) -> BatchJob:
        """Ask a batch to stop; without effect once it has ended or is ending.

        Raises:
            NotFoundError: The key has no batch of that id.
        """
        batch = self.batch(batch_id, owner)
        if batch.status in (Status.VALIDATING, Status.IN_PROGRESS):
            return self.update_batch(batch_id, only_if=batch.status, status=Status.CANCELLING)
        return batch

    def finish_batch(self, batch: BatchJob, outputs: Iterable[StoredFile]) -> BatchJob:
        """End a batch and store its output files in one transaction."""
        with self._engine.begin() as connection:
            for file in outputs:
                connection.execute(files.insert().values(asdict(file)))
            self._update(connection, batch.id, {"status": batch.outcome})
        return self.batch(batch.id)

    def _update(self, connection: sa.Connection, batch_id: str, changes: Mapping[str, Any]) -> None:
        """Change columns of a batch; a new status comes with the time at which it was reached."""
        values = dict(changes)
        if "status" in values:
            row = connection.execute(sa.select(batches.c.times).where(batches.c.id == batch_id))
            times = json.loads(row.scalar_one())
            times.setdefault(str(values["status"]), self.now())
            values["times"] = times
        connection.execute(
            batches.update().where(batches.c.id == batch_id).values(columns_of(values))
        )

    def _page(
        self,
        table: sa.Table,
        query: "sa.Select[Any]",
        owner: str,
        after: str | None,
        limit: int,
        *,
        is_ascending: bool,
    ) -> tuple[list[Mapping[str, Any]], bool]:
        """Rows of a query by their order of creation, and whether there are more."""
        number = table.c.number
        with self._engine.connect() as connection:
            if after is not None:
                position = sa.select(number).where(table.c.id == after, table.c.owner == owner)
                last_number = connection.execute(position).scalar()
                if last_number is None:
                    raise NotFoundError(f"No such object: {after[:100]}", param="after")
                query = query.where(number > last_number if is_ascending else number < last_number)
            order = number.asc() if is_ascending else number.desc()
            rows = connection.execute(query.order_by(order).limit(limit + 1)).mappings().all()
        return [dict(row) for row in rows[:limit]], len(rows) > limit
