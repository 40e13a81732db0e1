"""Rows of batches: what callers see of them, and the leases under which runners check and finalize them."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import sqlalchemy as sa

from nestvec.errors import NotFoundError, QuotaError
from nestvec.jobs.chunks import ChunkTable
from nestvec.jobs.database import begin_reading, begin_writing
from nestvec.jobs.endings import end_if_done
from nestvec.jobs.file_records import quota_error
from nestvec.jobs.records import Records
from nestvec.jobs.tables import batch_of, batches, columns_of, files
from nestvec.jobs.types import (
    ENDED,
    BatchJob,
    CheckedInput,
    Problem,
    Status,
    StoredFile,
)

# How long a runner may be silent before others take over what it holds.
LEASE_S: Final = 30.0
UNCHECKED: Final = (Status.VALIDATING.value, Status.IN_PROGRESS.value, Status.CANCELLING.value)


class BatchRecords(Records):
    """The rows of batches of all keys; calls block for a few milliseconds.

    Args:
        engine: The database.
        clock: Gives Unix time in seconds.
        lease_clock: Gives the time by which leases run out, where the database has none of its own.
        lease_s: How long a lease lasts without being renewed.

    Attributes:
        chunks: The chunks of all batches.
        lease_s: How long a lease lasts without being renewed.
    """

    def __init__(
        self,
        engine: sa.Engine,
        clock: Callable[[], float],
        *,
        lease_clock: Callable[[], float] = time.time,
        lease_s: float = LEASE_S,
    ) -> None:
        super().__init__(engine, clock)
        self.chunks = ChunkTable(engine, lease_s=lease_s, clock=lease_clock)
        self.lease_s = lease_s

    def add_batch(
        self, batch: BatchJob, *, max_unfinished: int = 2**31, max_stored_bytes: int = 2**62
    ) -> None:
        """Store a new batch.

        Args:
            batch: The batch.
            max_unfinished: Number of batches of its owner that may be unfinished, this one included.
            max_stored_bytes: Size of all files of its owner from which on no further batch is taken.

        Raises:
            QuotaError: The owner has too many unfinished batches, or no room for answers.
            NotFoundError: The input file has just been deleted.
            StoreError: The database failed.
        """
        mine = sa.and_(batches.c.owner == batch.owner, batches.c.status.not_in(ENDED))
        with begin_writing(self._engine) as connection:
            self._lock_owner(connection, batch.owner)
            count = connection.execute(sa.select(sa.func.count()).select_from(batches).where(mine))
            if count.scalar_one() >= max_unfinished:
                raise QuotaError(
                    f"You have {max_unfinished} batches that have not ended (max_unfinished_batches); wait for one of "
                    "them, or cancel it.",
                    param="input_file_id",
                )
            if self._stored_bytes(connection, batch.owner) >= max_stored_bytes:
                raise quota_error(max_stored_bytes, "input_file_id")
            has_input = sa.select(files.c.id).where(files.c.id == batch.input_file_id)
            if connection.execute(has_input).first() is None:
                raise NotFoundError(
                    f"No such File object: {batch.input_file_id[:100]}", param="input_file_id"
                )
            connection.execute(batches.insert().values(columns_of(asdict(batch))))

    def batch(self, batch_id: str, owner: str | None = None) -> BatchJob:
        """Find a batch.

        Args:
            batch_id: Id of the batch.
            owner: Id of the key that it must belong to; None finds any key's.

        Raises:
            NotFoundError: There is no such batch.
            StoreError: The database failed.
        """
        with begin_reading(self._engine) as connection:
            return _find(connection, batch_id, owner)

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
            StoreError: The database failed.
        """
        query = sa.select(batches).where(batches.c.owner == owner)
        rows, has_more = self._page(batches, query, owner, after, limit, is_ascending=False)
        return [batch_of(row) for row in rows], has_more

    def cancel_batch(self, batch_id: str, owner: str) -> BatchJob:
        """Ask a batch to stop; without effect once it has ended or is ending.

        Raises:
            NotFoundError: The key has no batch of that id.
            StoreError: The database failed.
        """
        with begin_writing(self._engine) as connection:
            batch = _find(connection, batch_id, owner, locks=True)
            if batch.status in (Status.VALIDATING, Status.IN_PROGRESS):
                self._update(connection, batch, {"status": Status.CANCELLING})
                batch = _find(connection, batch_id, owner)
        return batch

    def doomed(self, batch_ids: Collection[str]) -> dict[str, Status]:
        """Return which of some batches are cancelled or expired by now, with the status that they are to get.

        Raises:
            StoreError: The database failed.
        """
        query = sa.select(batches.c.id, batches.c.status, batches.c.expires_s).where(
            batches.c.id.in_(batch_ids),
            sa.or_(batches.c.status == Status.CANCELLING.value, batches.c.expires_s <= self.now()),
        )
        with begin_reading(self._engine) as connection:
            return {
                row.id: Status.CANCELLED if row.status == Status.CANCELLING else Status.EXPIRED
                for row in connection.execute(query)
            }

    def unended_ids(self) -> set[str]:
        """Return the ids of all batches that have not ended.

        Raises:
            StoreError: The database failed.
        """
        query = sa.select(batches.c.id).where(batches.c.status.not_in(ENDED))
        with begin_reading(self._engine) as connection:
            return set(connection.scalars(query))

    def counts(self) -> tuple[dict[str, int], int, int]:
        """Count what the store holds: for `JobObserver.counted`.

        Raises:
            StoreError: The database failed.
        """
        by_status = (
            sa.select(batches.c.status, sa.func.count(), sa.func.min(batches.c.created_s))
            .where(batches.c.status.not_in(ENDED))
            .group_by(batches.c.status)
        )
        with begin_reading(self._engine) as connection:
            rows = connection.execute(by_status).all()
            size = connection.execute(sa.select(sa.func.sum(files.c.size_bytes))).scalar()
        oldest_s = self.now() - min((row[2] for row in rows), default=self.now())
        found = {str(status): 0 for status in Status if not status.is_final}
        return found | {row[0]: row[1] for row in rows}, max(0, oldest_s), int(size or 0)

    # Steps: what is done to a batch as a whole, by one runner at a time.

    def claim_check(self, holder: str, passed_over: Collection[str] = ()) -> BatchJob | None:
        """Claim a batch whose input is to be checked and cut; owners with least of it done come first, some not at all.

        Raises:
            StoreError: The database failed.
        """
        others = batches.alias()
        ready = (
            sa.select(sa.func.count())
            .where(
                others.c.owner == batches.c.owner,
                others.c.status.not_in(ENDED),
                sa.or_(others.c.chunks.is_not(None), others.c.holder.is_not(None)),
            )
            .scalar_subquery()
        )
        unchecked = sa.and_(batches.c.chunks.is_(None), batches.c.status.in_(UNCHECKED))
        return self._claim_step(holder, unchecked, passed_over, ready)

    def claim_finalizing(self, holder: str, passed_over: Collection[str] = ()) -> BatchJob | None:
        """Claim a batch whose answers are to be put together; those of some owners are left for later.

        Raises:
            StoreError: The database failed.
        """
        return self._claim_step(holder, batches.c.status == Status.FINALIZING.value, passed_over)

    def _claim_step(
        self,
        holder: str,
        what: sa.ColumnElement[bool],
        passed_over: Collection[str],
        *order: sa.ColumnElement[Any],
    ) -> BatchJob | None:
        with begin_writing(self._engine) as connection:
            now_s = self.chunks.now_s(connection)
            is_free = sa.or_(batches.c.until_s.is_(None), batches.c.until_s < now_s)
            query = (
                sa.select(batches)
                .where(what, is_free, batches.c.owner.not_in(passed_over))
                .order_by(*order, batches.c.number)
                .limit(1)
                .with_for_update(of=batches, skip_locked=True)
            )
            row = connection.execute(query).mappings().first()
            if row is None:
                return None
            lease = {"holder": holder, "until_s": now_s + self.lease_s}
            connection.execute(batches.update().where(batches.c.id == row["id"]).values(lease))
            return batch_of(row)

    def renew_steps(self, holder: str, batch_ids: Collection[str]) -> set[str]:
        """Renew a runner's leases on batches; return the ids of those that it still holds.

        Raises:
            StoreError: The database failed.
        """
        with begin_writing(self._engine) as connection:
            until_s = self.chunks.now_s(connection) + self.lease_s
            rows = connection.execute(
                batches.update()
                .where(batches.c.holder == holder, batches.c.id.in_(batch_ids))
                .values(until_s=until_s)
                .returning(batches.c.id)
            )
            return set(rows.scalars())

    def release_all(
        self,
        holder: str | None,
        kept_chunks: Collection[tuple[str, int]] = (),
        kept_steps: Collection[str] = (),
    ) -> None:
        """Give everything back that a runner holds, or that all runners held which are known to be gone.

        Args:
            holder: Id of the runner, whose claims then are no attempts; None for all runners, whose claims are.
            kept_chunks: Batch and number of chunks that it goes on with.
            kept_steps: Ids of batches that it goes on with.

        Raises:
            StoreError: The database failed; leases then run out by themselves.
        """
        with begin_writing(self._engine) as connection:
            self.chunks.release_all(connection, holder, kept_chunks)
            held = batches.c.holder.is_not(None) if holder is None else batches.c.holder == holder
            held = sa.and_(held, batches.c.id.not_in(kept_steps))
            connection.execute(batches.update().where(held).values(holder=None, until_s=None))

    def begin_batch(
        self, batch_id: str, holder: str, found: CheckedInput, max_stored_bytes: int
    ) -> None:
        """Put a checked batch in progress, with its chunks; without effect where the lease was lost.

        Raises:
            QuotaError: The owner has no room for the answers.
            StoreError: The database failed.
        """
        with begin_writing(self._engine) as connection:
            batch = self._held(connection, batch_id, holder)
            if batch is None:
                return
            self._lock_owner(connection, batch.owner)
            taken = self._stored_bytes(connection, batch.owner)
            if found.done is None and taken + found.reserved_bytes > max_stored_bytes:
                raise quota_error(max_stored_bytes, "input_file_id")
            self.chunks.add(connection, found.chunks, found.done)
            changes: dict[str, Any] = {
                "total": found.total,
                "model": found.model,
                "reserved_bytes": found.reserved_bytes,
                "chunks": len(found.chunks),
                # Who has not heard that it worked tries again, and finds the lease gone.
                "holder": None,
                "until_s": None,
            }
            # A batch that was cancelled meanwhile stays so.
            if batch.status is Status.VALIDATING:
                changes["status"] = Status.IN_PROGRESS
            self._update(connection, batch, changes)
            end_if_done(connection, batch_id, self.now())

    def fail_batch(self, batch_id: str, problems: Sequence[Problem]) -> bool:
        """Fail a batch; what is finished of it is put together and delivered all the same; tells whether it has ended.

        Raises:
            StoreError: The database failed.
        """
        with begin_writing(self._engine) as connection:
            batch = _find(connection, batch_id, None, locks=True)
            if batch.status.value not in UNCHECKED:
                return False
            self.chunks.delete_unfinished(connection, batch_id)
            self._update(connection, batch, {"problems": problems})
            if batch.lines_done:
                end_if_done(connection, batch_id, self.now(), Status.FAILED)
            else:
                self._end(connection, batch, Status.FAILED)
        return not batch.lines_done

    def end_unchecked(self, batch_id: str, holder: str, status: Status) -> bool:
        """End a batch that was cancelled or expired before its input was checked; returns False on a lost lease.

        Raises:
            StoreError: The database failed.
        """
        with begin_writing(self._engine) as connection:
            batch = self._held(connection, batch_id, holder)
            if batch is not None and batch.status.value in UNCHECKED:
                self._end(connection, batch, status)
                return True
        return False

    def lose_batch(self, batch_id: str, problems: Sequence[Problem]) -> bool:
        """Fail a batch whose answers are lost; returns False where another runner has ended it.

        Raises:
            StoreError: The database failed.
        """
        with begin_writing(self._engine) as connection:
            batch = _find(connection, batch_id, None, locks=True)
            if batch.status is not Status.FINALIZING:
                return False
            lost = {"problems": problems, "output_file_id": None, "error_file_id": None}
            self._update(connection, batch, lost)
            self._end(connection, batch, Status.FAILED)
        return True

    def end_batch(self, batch_id: str, outputs: Iterable[StoredFile]) -> bool:
        """End a batch and note its output files in one transaction; return False where another runner has done so.

        Raises:
            StoreError: The database failed.
        """
        with begin_writing(self._engine) as connection:
            batch = _find(connection, batch_id, None, locks=True)
            if batch.status is not Status.FINALIZING or batch.outcome is None:
                return False
            for file in outputs:
                connection.execute(files.insert().values(asdict(file)))
            self._end(connection, batch, batch.outcome)
        return True

    def _end(self, connection: sa.Connection, batch: BatchJob, status: Status) -> None:
        self.chunks.delete(connection, [batch.id])
        self._update(connection, batch, {"status": status, "holder": None, "until_s": None})

    def _held(self, connection: sa.Connection, batch_id: str, holder: str) -> BatchJob | None:
        """A batch, locked, where a runner still holds its lease."""
        query = sa.select(batches).where(batches.c.id == batch_id, batches.c.holder == holder)
        row = connection.execute(query.with_for_update()).mappings().first()
        return None if row is None else batch_of(row)

    def _update(
        self, connection: sa.Connection, batch: BatchJob, changes: Mapping[str, Any]
    ) -> None:
        """Change columns of a locked batch; a new status comes with the time at which it was reached, set once."""
        values = dict(changes)
        if "status" in values:
            values["times"] = {str(values["status"]): self.now(), **batch.times}
        connection.execute(
            batches.update().where(batches.c.id == batch.id).values(columns_of(values))
        )


def _find(
    connection: sa.Connection, batch_id: str, owner: str | None, *, locks: bool = False
) -> BatchJob:
    query = sa.select(batches).where(batches.c.id == batch_id)
    if owner is not None:
        query = query.where(batches.c.owner == owner)
    row = connection.execute(query.with_for_update() if locks else query).mappings().first()
    if row is None:
        raise NotFoundError(f"No batch found with id '{batch_id[:100]}'.", param="id")
    return batch_of(row)
