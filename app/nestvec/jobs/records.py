"""What the records of files and of batches share: transactions, pages, and the sizes that a key's quota counts."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from nestvec.errors import NotFoundError
from nestvec.jobs.database import begin_reading
from nestvec.jobs.tables import batches, files, uploads
from nestvec.jobs.types import ENDED
from nestvec.system.sql_engines import is_shared

# Keys of the locks by which PostgreSQL's transactions of one owner wait for one another; the number is this project's.
OWNER_LOCKS: Final = 531_720_411


class Records:
    """Rows of the store's database.

    Args:
        engine: The database.
        clock: Gives Unix time in seconds.
    """

    def __init__(self, engine: sa.Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock

    def now(self) -> int:
        """Unix time in whole seconds."""
        return int(self._clock())

    def stored_bytes(self, owner: str) -> int:
        """Size of all files of a key, with the room kept for its uploads and its batches' answers, in bytes.

        Raises:
            StoreError: The database failed.
        """
        with begin_reading(self._engine) as connection:
            return self._stored_bytes(connection, owner)

    def _stored_bytes(self, connection: sa.Connection, owner: str) -> int:
        written = batches.c.output_bytes + batches.c.error_bytes
        larger = sa.case(
            (written > batches.c.reserved_bytes, written), else_=batches.c.reserved_bytes
        )
        sums = (
            sa.select(sa.func.sum(files.c.size_bytes)).where(files.c.owner == owner),
            sa.select(sa.func.sum(uploads.c.reserved_bytes)).where(
                uploads.c.owner == owner, uploads.c.until_s > self.now()
            ),
            sa.select(sa.func.sum(larger)).where(
                batches.c.owner == owner, batches.c.status.not_in(ENDED)
            ),
        )
        return sum(int(connection.execute(query).scalar() or 0) for query in sums)

    def _lock_owner(self, connection: sa.Connection, owner: str) -> None:
        """Let transactions that count what an owner has wait for one another; SQLite's do so anyway."""
        if is_shared(self._engine):
            lock = sa.func.pg_advisory_xact_lock(OWNER_LOCKS, sa.func.hashtext(owner))
            connection.execute(sa.select(lock))

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
        with begin_reading(self._engine) as connection:
            if after is not None:
                position = sa.select(number).where(table.c.id == after, table.c.owner == owner)
                last_number = connection.execute(position).scalar()
                if last_number is None:
                    raise NotFoundError(f"No such object: {after[:100]}", param="after")
                query = query.where(number > last_number if is_ascending else number < last_number)
            order = number.asc() if is_ascending else number.desc()
            rows = connection.execute(query.order_by(order).limit(limit + 1)).mappings().all()
        return [dict(row) for row in rows[:limit]], len(rows) > limit
