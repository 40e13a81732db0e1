"""Chunks of batches, which runners of any number of servers claim under leases.

A runner that holds a chunk renews its lease; one that dies or hangs lets it run out, and another runner claims the
chunk. A chunk is finished only by who still holds it (the holder is its fencing token: Kleppmann, "How to do
distributed locking", 2016), so each line is answered once however many runners have tried.

Owners take turns by the tokens that they were served: the one with the least goes first, and one that comes back after
a pause starts at the level of the others (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996).
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from nestvec.jobs.database import begin_reading, begin_writing
from nestvec.jobs.endings import end_if_done
from nestvec.jobs.tables import DONE, HELD, WAITING, batches, chunks, owners
from nestvec.jobs.types import BatchChunk, ChunkResult, Status
from nestvec.system.sql_engines import is_shared

RUNNING: Final = (Status.IN_PROGRESS.value, Status.CANCELLING.value)
# A chunk that lost its runner so often may be what ends them, and from then on runs with nothing beside it.
SUSPECT_ATTEMPTS: Final = 3
# The row that holds the level of the owner who was served last, the fair queue's virtual time; no key has this id.
EVERYBODY: Final = "*"


class ChunkTable:
    """The chunks of all batches. Calls block for a few milliseconds.

    Args:
        engine: The database.
        lease_s: How long a claim lasts without being renewed.
        clock: Unix time in seconds; servers that share a PostgreSQL go by its clock instead.
    """

    def __init__(
        self, engine: sa.Engine, *, lease_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._lease_s = lease_s
        self._clock = clock
        self._queries = {
            suspects: ClaimQueries.make(suspects, sa.false()) for suspects in (False, True)
        }
        self._charge = _charge(engine)

    def add(
        self,
        connection: sa.Connection,
        new_chunks: Iterable[BatchChunk],
        first_result: ChunkResult | None = None,
    ) -> int:
        """Note the chunks of a batch within a transaction.

        Args:
            connection: The transaction.
            new_chunks: The chunks.
            first_result: What became of the first of them, where it is done already.

        Returns:
            Their number.
        """
        rows = [{**EMPTY_RESULT, **asdict(chunk), "state": WAITING} for chunk in new_chunks]
        if rows and first_result is not None:
            rows[0] |= {**asdict(first_result), "state": DONE}
        if rows:
            connection.execute(chunks.insert(), rows)
        return len(rows)

    def claim(
        self,
        holder: str,
        *,
        skipped: "sa.ColumnElement[bool] | None" = None,
        suspects: bool = False,
    ) -> BatchChunk | None:
        """Claim the next chunk; None where none is waiting.

        Args:
            holder: Id of the runner, new at each start of its process.
            skipped: Which batches are passed over for now.
            suspects: Claims one of those that have lost their runner several times, instead of one of the others.

        Raises:
            StoreError: The database failed.
        """
        with begin_writing(self._engine) as connection:
            now_s = self.now_s(connection)
            queries = (
                self._queries[suspects] if skipped is None else ClaimQueries.make(suspects, skipped)
            )
            for owner, served_tokens in _turns(connection, queries.turns, now_s):
                values = {"now_s": now_s, "who": owner}
                row = connection.execute(queries.next_of, values).mappings().one_or_none()
                if row is None:
                    continue  # another runner has just taken its last one
                chunk = BatchChunk(**row)
                connection.execute(
                    chunks.update()
                    .where(_is(chunk))
                    .values(
                        state=HELD,
                        holder=holder,
                        until_s=now_s + self._lease_s,
                        attempts=chunks.c.attempts + 1,
                    )
                )
                # Everybody's level rises to where the owner stood: who comes later begins there.
                mine = {"who": owner, "start": served_tokens, "more": chunk.charged_tokens}
                level = {"who": EVERYBODY, "start": served_tokens, "more": 0}
                connection.execute(self._charge, [mine, level])
                return chunk
        return None

    def renew(self, holder: str, held: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        """Renew claims of a runner.

        Args:
            holder: Id of the runner.
            held: Batch and number of each chunk that it is at work on.

        Returns:
            Those that it still holds.

        Raises:
            StoreError: The database failed.
        """
        if not held:
            return set()
        with begin_writing(self._engine) as connection:
            until_s = self.now_s(connection) + self._lease_s
            key = sa.tuple_(chunks.c.batch_id, chunks.c.number)
            mine = sa.and_(chunks.c.holder == holder, chunks.c.state == HELD, key.in_(list(held)))
            rows = connection.execute(
                chunks.update()
                .where(mine)
                .values(until_s=until_s)
                .returning(chunks.c.batch_id, chunks.c.number)
            ).all()
        return {(row.batch_id, row.number) for row in rows}

    def finish(
        self,
        chunk: BatchChunk,
        holder: str,
        result: ChunkResult,
        now: int | None = None,
        on_last: Callable[[], None] = lambda: None,
    ) -> bool:
        """Note what became of a chunk, unless its claim was lost.

        The batch's counts go up with it; with the last chunk the batch is ready to be finalized.

        Args:
            chunk: As it was claimed.
            holder: Id of the runner.
            result: What became of it.
            now: Unix time that is noted where it was the last chunk.
            on_last: Called where it was.

        Returns:
            Whether the runner still held the chunk; else its parts are of no use.

        Raises:
            StoreError: The database failed; whether the chunk is finished is not known then, and may be tried again.
        """
        now = int(self._clock()) if now is None else now
        with begin_writing(self._engine) as connection:
            batch = connection.execute(
                sa.select(batches.c.owner).where(batches.c.id == chunk.batch_id).with_for_update()
            ).one_or_none()
            if batch is None:
                return False
            values = {**asdict(result), "state": DONE, "until_s": None}
            held = chunks.update().where(_is_held(chunk, holder)).values(values)
            if not connection.execute(held).rowcount:
                # An earlier call may have committed without hearing so.
                it = sa.and_(_is(chunk), _is_claim(chunk, holder), chunks.c.state == DONE)
                done = connection.execute(sa.select(chunks.c.number).where(it))
                return done.first() is not None
            connection.execute(
                batches.update()
                .where(batches.c.id == chunk.batch_id)
                .values(
                    completed=batches.c.completed + result.completed,
                    failed=batches.c.failed + result.failed,
                    input_tokens=batches.c.input_tokens + result.input_tokens,
                    lines_done=batches.c.lines_done + chunk.requests,
                    output_bytes=batches.c.output_bytes + result.output_bytes,
                    error_bytes=batches.c.error_bytes + result.error_bytes,
                )
            )
            served = owners.c.served_tokens + result.input_tokens - chunk.charged_tokens
            mine = owners.update().where(owners.c.owner == batch.owner)
            connection.execute(mine.values(served_tokens=served))
            has_ended = end_if_done(connection, chunk.batch_id, now)
        if has_ended:
            on_last()
        return True

    def release(self, chunk: BatchChunk, holder: str, *, is_attempt: bool = False) -> None:
        """Give a chunk back that could not be finished.

        Args:
            chunk: As it was claimed.
            holder: Id of the runner.
            is_attempt: Whether the chunk may be to blame.

        Raises:
            StoreError: The database failed; the claim then runs out by itself.
        """
        attempts = chunk.attempts + is_attempt
        with begin_writing(self._engine) as connection:
            connection.execute(
                chunks.update()
                .where(_is_held(chunk, holder))
                .values(state=WAITING, holder=None, until_s=None, attempts=attempts)
            )

    def release_all(
        self, connection: sa.Connection, holder: str | None, kept: Collection[tuple[str, int]] = ()
    ) -> None:
        """Give a runner's chunks back as if not claimed, but some; or those of all runners, as attempts."""
        mine = chunks.c.state == HELD
        values: dict[str, Any] = {"state": WAITING, "holder": None, "until_s": None}
        if holder is not None:
            key = sa.tuple_(chunks.c.batch_id, chunks.c.number)
            mine = sa.and_(mine, chunks.c.holder == holder, key.not_in(list(kept)))
            values["attempts"] = chunks.c.attempts - 1
        connection.execute(chunks.update().where(mine).values(values))

    def split(self, chunk: BatchChunk, holder: str, pieces: Sequence[BatchChunk]) -> None:
        """Put smaller chunks in the place of one; without effect where the claim was lost.

        Args:
            chunk: As it was claimed.
            holder: Id of the runner.
            pieces: The smaller ones; their numbers are given here.

        Raises:
            StoreError: The database failed.
        """
        newest = sa.select(sa.func.max(chunks.c.number)).where(chunks.c.batch_id == chunk.batch_id)
        with begin_writing(self._engine) as connection:
            # Who splits another chunk of the batch waits, since numbers are given.
            row = sa.select(batches.c.id).where(batches.c.id == chunk.batch_id).with_for_update()
            connection.execute(row)
            first = connection.execute(newest).scalar() or 0
            if connection.execute(chunks.delete().where(_is_held(chunk, holder))).rowcount:
                numbered = (replace(piece, number=first + n) for n, piece in enumerate(pieces, 1))
                count = self.add(connection, numbered)
                connection.execute(
                    batches.update()
                    .where(batches.c.id == chunk.batch_id)
                    .values(chunks=batches.c.chunks + count - 1)
                )

    def has_suspects(self) -> bool:
        """Whether chunks wait that have lost their runner several times.

        Raises:
            StoreError: The database failed.
        """
        with begin_reading(self._engine) as connection:
            has_run_out = sa.and_(chunks.c.state == HELD, chunks.c.until_s < self.now_s(connection))
            is_free = sa.or_(chunks.c.state == WAITING, has_run_out)
            free = sa.select(chunks.c.number).where(_is_suspect(), is_free).limit(1)
            return connection.execute(free).first() is not None

    def results(self, batch_id: str) -> list[ChunkResult]:
        """Return what became of the chunks of a batch, in the order of its lines.

        Raises:
            StoreError: The database failed.
        """
        query = (
            sa.select(chunks).where(chunks.c.batch_id == batch_id).order_by(chunks.c.first_request)
        )
        with begin_reading(self._engine) as connection:
            return [_result_of(row) for row in connection.execute(query).mappings()]

    def delete_unfinished(self, connection: sa.Connection, batch_id: str) -> None:
        """Forget the chunks of a batch that are not done; whoever holds one finds its claim lost."""
        connection.execute(
            chunks.delete().where(chunks.c.batch_id == batch_id, chunks.c.state != DONE)
        )

    def delete(self, connection: sa.Connection, batch_ids: Sequence[str]) -> None:
        """Forget the chunks of batches that have ended."""
        connection.execute(chunks.delete().where(chunks.c.batch_id.in_(batch_ids)))

    def now_s(self, connection: sa.Connection) -> float:
        """Return the time by which leases run out, in seconds."""
        if is_shared(self._engine):
            now = sa.select(sa.extract("epoch", sa.func.clock_timestamp()))
            return float(connection.execute(now).scalar_one())
        return self._clock()


@dataclass(frozen=True, slots=True)
class ClaimQueries:
    """What a claim asks for; made once, as making them takes longer than running them.

    Attributes:
        turns: Owners with claimable chunks, the number of the oldest batch of each, and what each was served.
        next_of: The first claimable chunk of the oldest batch of the owner "who", locked against other runners.
    """

    turns: "sa.Select[Any]"
    next_of: "sa.Select[Any]"

    @classmethod
    def make(cls, suspects: bool, skipped: sa.ColumnElement[bool]) -> Self:  # noqa: FBT001 - as `claim` has it
        """Make the queries for suspect chunks or for others, but those of some batches."""
        has_run_out = sa.and_(chunks.c.state == HELD, chunks.c.until_s < sa.bindparam("now_s"))
        which = sa.and_(
            batches.c.status.in_(RUNNING),
            sa.not_(skipped),
            sa.or_(chunks.c.state == WAITING, has_run_out),
            _is_suspect() if suspects else sa.not_(_is_suspect()),
        )
        turns = (
            sa.select(batches.c.owner, sa.func.min(batches.c.number), owners.c.served_tokens)
            .select_from(batches.outerjoin(owners, owners.c.owner == batches.c.owner))
            .where(sa.exists().where(chunks.c.batch_id == batches.c.id, which))
            .group_by(batches.c.owner, owners.c.served_tokens)
        )
        next_of = (
            sa.select(*(chunks.c[field.name] for field in fields(BatchChunk)))
            .join(batches, batches.c.id == chunks.c.batch_id)
            .where(batches.c.owner == sa.bindparam("who"), which)
            .order_by(batches.c.number, chunks.c.first_request)
            .limit(1)
            .with_for_update(of=chunks, skip_locked=True)
        )
        return cls(turns, next_of)


LEVEL: Final = sa.select(owners.c.served_tokens).where(owners.c.owner == EVERYBODY)
EMPTY_RESULT: Final = asdict(ChunkResult())


def _is(chunk: BatchChunk) -> sa.ColumnElement[bool]:
    return sa.and_(chunks.c.batch_id == chunk.batch_id, chunks.c.number == chunk.number)


def _is_claim(chunk: BatchChunk, holder: str) -> sa.ColumnElement[bool]:
    """Whether a chunk's latest claim is this one; the number of claims tells a runner's own claims apart."""
    return sa.and_(chunks.c.holder == holder, chunks.c.attempts == chunk.attempts + 1)


def _is_held(chunk: BatchChunk, holder: str) -> sa.ColumnElement[bool]:
    return sa.and_(_is(chunk), _is_claim(chunk, holder), chunks.c.state == HELD)


def _is_suspect() -> sa.ColumnElement[bool]:
    return chunks.c.attempts >= SUSPECT_ATTEMPTS


def _turns(
    connection: sa.Connection, query: "sa.Select[Any]", now_s: float
) -> list[tuple[str, float]]:
    """The owners who have a chunk to claim, the least served first, with what they were served."""
    rows = connection.execute(query, {"now_s": now_s}).all()
    floor = connection.execute(LEVEL).scalar() or 0.0 if rows else 0.0
    turns = sorted((max(floor, row[2] or 0.0), row[1], row[0]) for row in rows)
    return [(owner, served_tokens) for served_tokens, _, owner in turns]


def _charge(engine: sa.Engine) -> sa.Insert:
    """What raises what an owner was served; another runner may do so at the same time, and both count."""
    is_postgres = is_shared(engine)
    insert = insert_postgres(owners) if is_postgres else insert_sqlite(owners)
    larger = sa.func.greatest if is_postgres else sa.func.max
    start = sa.cast(sa.bindparam("start"), sa.Float)
    more = sa.cast(sa.bindparam("more"), sa.Float)
    level = larger(owners.c.served_tokens, start) + more
    return insert.values(
        owner=sa.bindparam("who"), served_tokens=start + more
    ).on_conflict_do_update(index_elements=["owner"], set_={"served_tokens": level})


def _result_of(row: Mapping[Any, Any] | sa.RowMapping) -> ChunkResult:
    return ChunkResult(**{field.name: row[field.name] for field in fields(ChunkResult)})
