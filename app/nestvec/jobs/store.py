"""Where files and batches are kept: SQLite in WAL mode, and the files beside it. One process owns the folder."""

import fcntl
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final

import sqlalchemy as sa

from nestvec.errors import InputError, NotFoundError, QuotaError, StoreError
from nestvec.jobs.tables import batch_of, batches, begin, columns_of, durable, file_of, files
from nestvec.jobs.types import ENDED, Batch, Status, StoredFile
from nestvec.system.durable_files import sync

DATABASE: Final = "jobs.db"
HEAD: Final = "0001"  # the newest of the migrations
UPLOAD: Final = "upload-"
ABANDONED_S: Final = 3600.0  # nobody works on a file for so long without touching it
MIGRATIONS: Final = Path(__file__).parent / "migrations"


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return f"{prefix}{secrets.token_hex(16)}"


def lock_folder(folder: Path) -> IO[bytes]:
    """Make a data folder one's own until the file given is closed.

    Raises:
        StoreError: Another process owns it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("ab")
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
        folder: Made where absent.
        clock: Unix seconds.
        is_shared: Several processes use it, and whoever started them holds its lock.

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
            # Texts of callers: nobody else on the machine need read them.
            for private in (self.files_folder, self.parts_folder):
                private.mkdir(parents=True, exist_ok=True)
                private.chmod(0o700)
            (folder / DATABASE).touch(mode=0o600)
            # A crash cut it short; of those begun since another process may still be writing one.
            for left in self.parts_folder.glob(f"{UPLOAD}*"):
                if not is_shared or clock() - left.stat().st_mtime > ABANDONED_S:
                    left.unlink(missing_ok=True)
        except OSError as error:
            self._unlock()
            raise StoreError(f"{folder}: cannot be written ({error.strerror})") from error
        self._engine = sa.create_engine(
            f"sqlite:///{folder / DATABASE}",
            poolclass=sa.pool.StaticPool,
            # One thread at a time, but not always the same.
            connect_args={"check_same_thread": False},
        )
        sa.event.listen(self._engine, "connect", durable)
        sa.event.listen(self._engine, "begin", begin)
        try:
            self._migrate()
        except StoreError:
            self.close()
            raise
        except sa.exc.DatabaseError as error:
            self.close()
            raise StoreError(
                f"{folder / DATABASE}: cannot be opened ({error.__cause__})"
            ) from error

    @property
    def files_folder(self) -> Path:
        """Contents of files, by their ids."""
        return self.folder / "files"

    @property
    def parts_folder(self) -> Path:
        """Files in the making."""
        return self.folder / "parts"

    def content_path(self, file_id: str) -> Path:
        """Where a file's content lies."""
        return self.files_folder / file_id

    def part_path(self, batch: Batch, kind: str) -> Path:
        """Where a batch's "output" or "errors" is gathered."""
        return self.parts_folder / f"{batch.id}.{kind}"

    def upload_path(self) -> Path:
        """A new place for an upload on its way."""
        return self.parts_folder / new_id(UPLOAD)

    def now(self) -> int:
        """Unix time."""
        return int(self._clock())

    def close(self) -> None:
        """Let another process have the folder."""
        self._engine.dispose()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    # Files

    def stored_bytes(self, owner: str) -> int:
        """Size of all files of a key."""
        query = sa.select(sa.func.coalesce(sa.func.sum(files.c.size_bytes), 0))
        with self._engine.connect() as connection:
            return int(connection.execute(query.where(files.c.owner == owner)).scalar_one())

    def add_file(self, file: StoredFile, content: Path, max_stored_bytes: int) -> None:
        """Take over a finished upload.

        Args:
            file: What to note of it.
            content: Moved to its place.
            max_stored_bytes: What the owner may have in all.

        Raises:
            QuotaError: That would be too much.
            OSError: The disk is full or read-only.
        """
        if self.stored_bytes(file.owner) + file.size_bytes > max_stored_bytes:
            raise QuotaError(
                f"Your files would take over {max_stored_bytes} bytes; delete some first.",
                param="file",
            )
        with content.open("rb") as whole:
            sync(whole)
        content.replace(self.content_path(file.id))
        with self._engine.begin() as connection:
            connection.execute(files.insert().values(asdict(file)))

    def file(self, file_id: str, owner: str) -> StoredFile:
        """A file of a key.

        Raises:
            NotFoundError: It has none of that id, or it has expired.
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
        """Files of a key, and whether there are more.

        Raises:
            NotFoundError: `after` is none of them.
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
        """Remove a file.

        Raises:
            NotFoundError: The key has none of that id.
            InputError: A batch still reads it.
        """
        self.file(file_id, owner)
        reading = sa.select(batches.c.id).where(
            batches.c.input_file_id == file_id,
            batches.c.status.not_in(ENDED),
        )
        with self._engine.begin() as connection:
            if found := connection.execute(reading).scalar():
                raise InputError(
                    f"the file is being read by {found}; cancel that first", param="id"
                )
            connection.execute(files.delete().where(files.c.id == file_id))
        self.content_path(file_id).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what has expired, unless a batch still reads it, and contents that nothing tells of after a crash."""
        reading = sa.select(batches.c.input_file_id).where(batches.c.status.not_in(ENDED))
        late = files.delete().where(files.c.expires_s <= self.now(), files.c.id.not_in(reading))
        with self._engine.begin() as connection:
            connection.execute(late)
            known = set(connection.execute(sa.select(files.c.id)).scalars())
            running = sa.select(batches.c.output_file_id, batches.c.error_file_id).where(
                batches.c.status == Status.FINALIZING.value
            )
            known |= {name for row in connection.execute(running) for name in row if name}
        for path in self.files_folder.iterdir():
            # One that came just now may be another process's, which notes it next.
            is_new = (
                self._lock is None
                and path.exists()
                and self._clock() - path.stat().st_ctime < ABANDONED_S
            )
            if path.name not in known and not is_new:
                path.unlink(missing_ok=True)

    # Batches

    def add_batch(self, batch: Batch) -> None:
        """Note a new batch."""
        with self._engine.begin() as connection:
            connection.execute(batches.insert().values(columns_of(asdict(batch))))

    def batch(self, batch_id: str, owner: str | None = None) -> Batch:
        """A batch; of a key, where one is given.

        Raises:
            NotFoundError: There is none of that id.
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
    ) -> tuple[list[Batch], bool]:
        """Batches of a key, newest first, and whether there are more.

        Raises:
            NotFoundError: `after` is none of them.
        """
        query = sa.select(batches).where(batches.c.owner == owner)
        rows, has_more = self._page(batches, query, owner, after, limit, is_ascending=False)
        return [batch_of(row) for row in rows], has_more

    def unfinished(self) -> list[Batch]:
        """Batches that are to be gone on with, oldest first."""
        query = sa.select(batches).where(batches.c.status.not_in(ENDED)).order_by(batches.c.number)
        with self._engine.connect() as connection:
            return [batch_of(row) for row in connection.execute(query).mappings()]

    def update_batch(
        self,
        batch_id: str,
        *,
        only_if: Status | None = None,
        **changes: Any,  # noqa: ANN401 - any column
    ) -> Batch:
        """Change a batch, and note when it reached its status.

        Args:
            batch_id: Which.
            only_if: Change nothing where its status is another by now.
            changes: Columns and their values.
        """
        with self._engine.begin() as connection:
            now = sa.select(batches.c.status).where(batches.c.id == batch_id)
            if only_if is None or connection.execute(now).scalar() == only_if:
                self._update(connection, batch_id, changes)
        return self.batch(batch_id)

    def cancel_batch(self, batch_id: str, owner: str) -> Batch:
        """Ask a batch to stop; no effect once it has ended or is ending.

        Raises:
            NotFoundError: The key has none of that id.
        """
        batch = self.batch(batch_id, owner)
        if batch.status in (Status.VALIDATING, Status.IN_PROGRESS):
            return self.update_batch(batch_id, only_if=batch.status, status=Status.CANCELLING)
        return batch

    def finish_batch(self, batch: Batch, made: Iterable[StoredFile]) -> Batch:
        """End a batch, with its output files, in one step."""
        with self._engine.begin() as connection:
            for file in made:
                connection.execute(files.insert().values(asdict(file)))
            self._update(connection, batch.id, {"status": batch.outcome})
        return self.batch(batch.id)

    def _update(self, connection: sa.Connection, batch_id: str, changes: Mapping[str, Any]) -> None:
        changed = dict(changes)
        if "status" in changed:
            row = connection.execute(sa.select(batches.c.times).where(batches.c.id == batch_id))
            times = json.loads(row.scalar_one())
            times.setdefault(str(changed["status"]), self.now())
            changed["times"] = times
        connection.execute(
            batches.update().where(batches.c.id == batch_id).values(columns_of(changed))
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
        number = table.c.number
        with self._engine.connect() as connection:
            if after is not None:
                place = sa.select(number).where(table.c.id == after, table.c.owner == owner)
                found = connection.execute(place).scalar()
                if found is None:
                    raise NotFoundError(f"No such object: {after[:100]}", param="after")
                query = query.where(number > found if is_ascending else number < found)
            order = number.asc() if is_ascending else number.desc()
            rows = connection.execute(query.order_by(order).limit(limit + 1)).mappings().all()
        return [dict(row) for row in rows[:limit]], len(rows) > limit

    def _migrate(self) -> None:
        """Bring a store of an older version up to this one."""
        version = sa.table("alembic_version", sa.column("version_num"))
        with self._engine.connect() as connection:
            if sa.inspect(connection).has_table("alembic_version"):
                found = connection.execute(sa.select(version)).scalar()
                if found == HEAD:
                    return
        # Imported where needed: only the first start of a version needs it.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise StoreError(f"{self.folder}: made by a newer version of nestvec") from error
