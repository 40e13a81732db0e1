"""Rows of files, and the room that a key's files may take."""

from dataclasses import asdict
from typing import Final

import sqlalchemy as sa

from nestvec.errors import InputError, NotFoundError, QuotaError
from nestvec.jobs.database import begin_reading, begin_writing
from nestvec.jobs.records import Records
from nestvec.jobs.tables import batches, file_of, files, uploads
from nestvec.jobs.types import ENDED, StoredFile

# Nobody works on a file for so long without touching it.
ABANDONED_S: Final = 3600


class FileRecords(Records):
    """The rows of files of all keys; calls block for a few milliseconds."""

    def reserve_upload(
        self,
        upload_id: str,
        owner: str,
        wanted_bytes: int | None,
        *,
        max_file_bytes: int,
        max_stored_bytes: int,
    ) -> int:
        """Keep room for an upload before its first byte is written.

        Args:
            upload_id: Names it until `end_upload`.
            owner: Id of the key.
            wanted_bytes: What it is going to take at most; None where that is not known, for as much as there is.
            max_file_bytes: Size that one file may have.
            max_stored_bytes: Size that all files of the owner may have together.

        Returns:
            The bytes that the file may have.

        Raises:
            QuotaError: There is not so much room.
            StoreError: The database failed.
        """
        with begin_writing(self._engine) as connection:
            self._lock_owner(connection, owner)
            room = max_stored_bytes - self._stored_bytes(connection, owner)
            reserved = min(max_file_bytes, room if wanted_bytes is None else wanted_bytes)
            if room <= 0 or reserved > room:
                raise quota_error(max_stored_bytes, "file")
            connection.execute(
                uploads.insert().values(
                    id=upload_id,
                    owner=owner,
                    reserved_bytes=reserved,
                    until_s=self.now() + ABANDONED_S,
                )
            )
        return reserved

    def end_upload(self, upload_id: str) -> None:
        """Give the room that was kept for an upload back.

        Raises:
            StoreError: The database failed; the room comes back by itself after an hour.
        """
        with begin_writing(self._engine) as connection:
            connection.execute(uploads.delete().where(uploads.c.id == upload_id))

    def note_file(self, file: StoredFile, max_stored_bytes: int, upload_id: str = "") -> None:
        """Note a file whose content is stored.

        Args:
            file: What is noted of it.
            max_stored_bytes: Size that all files of the owner may have together.
            upload_id: The upload that it comes from, whose room it takes.

        Raises:
            QuotaError: The owner's files would be too large.
            StoreError: The database failed.
        """
        with begin_writing(self._engine) as connection:
            self._lock_owner(connection, file.owner)
            connection.execute(uploads.delete().where(uploads.c.id == upload_id))
            if self._stored_bytes(connection, file.owner) + file.size_bytes > max_stored_bytes:
                raise quota_error(max_stored_bytes, "file")
            connection.execute(files.insert().values(asdict(file)))

    def file(self, file_id: str, owner: str) -> StoredFile:
        """Find a file of a key.

        Raises:
            NotFoundError: The key has no file of that id, or it has expired.
            StoreError: The database failed.
        """
        query = sa.select(files).where(files.c.id == file_id, files.c.owner == owner)
        with begin_reading(self._engine) as connection:
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
            StoreError: The database failed.
        """
        query = sa.select(files).where(
            files.c.owner == owner,
            sa.or_(files.c.expires_s.is_(None), files.c.expires_s > self.now()),
        )
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        rows, has_more = self._page(files, query, owner, after, limit, is_ascending=is_ascending)
        return [file_of(row) for row in rows], has_more

    def forget_file(self, file_id: str, owner: str) -> None:
        """Delete the row of a file.

        Raises:
            NotFoundError: The key has no file of that id.
            InputError: A batch still reads the file.
            StoreError: The database failed.
        """
        self.file(file_id, owner)
        reading = sa.select(batches.c.id).where(
            batches.c.input_file_id == file_id,
            batches.c.status.not_in(ENDED),
        )
        with begin_writing(self._engine) as connection:
            self._lock_owner(connection, owner)
            if batch_id := connection.execute(reading).scalar():
                raise InputError(
                    f"the file is being read by {batch_id}; cancel that first", param="id"
                )
            connection.execute(files.delete().where(files.c.id == file_id))

    def forget_expired(self) -> tuple[set[str], set[str]]:
        """Delete the rows of files that have expired, unless a batch still reads them.

        Returns:
            Ids of the files that were deleted, and of all files whose contents must stay.

        Raises:
            StoreError: The database failed.
        """
        reading = sa.select(batches.c.input_file_id).where(batches.c.status.not_in(ENDED))
        expired = (
            files.delete()
            .where(files.c.expires_s <= self.now(), files.c.id.not_in(reading))
            .returning(files.c.id)
        )
        coming = sa.select(batches.c.output_file_id, batches.c.error_file_id).where(
            batches.c.status.not_in(ENDED)
        )
        with begin_writing(self._engine) as connection:
            gone = set(connection.execute(expired).scalars())
            connection.execute(uploads.delete().where(uploads.c.until_s <= self.now()))
            known = set(connection.execute(sa.select(files.c.id)).scalars())
            known |= {name for row in connection.execute(coming) for name in row if name}
        return gone, known


def quota_error(max_stored_bytes: int, param: str) -> QuotaError:
    """Return the error for a key whose files would take too much room."""
    return QuotaError(
        f"Your files, uploads under way and answers to come would take over {max_stored_bytes} bytes "
        "(max_stored_bytes); delete some files first.",
        param=param,
    )
