"""What each key has used in each month, in a database that servers may share."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from nestvec.errors import StoreError
from nestvec.keys.key_usage import KeyUsage
from nestvec.keys.usage_schema import usage, usage_schema
from nestvec.system.sql_engines import is_shared

# Begins the ids of rows that say which older store was taken over; keys' ids have no colon.
TAKEN_OVER = "taken-over:"


class UsageTable:
    """The table of usage; for one thread at a time.

    Args:
        engine: Connects to the database; transactions on it that write must not fail for another one's sake.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        dialect = postgresql if self.is_shared else sqlite
        statement = dialect.insert(usage)
        self._add = statement.on_conflict_do_update(
            index_elements=[usage.c.key_id, usage.c.month],
            set_={
                name: usage.c[name] + statement.excluded[name] for name in ("requests", "tokens")
            },
        )

    @property
    def is_shared(self) -> bool:
        """Whether servers on several machines use the same table."""
        return is_shared(self._engine)

    def make(self) -> None:
        """Make the table where it is not there yet.

        Raises:
            StoreError: The database is damaged, or cannot be reached or written.
        """
        with self._begin() as connection:
            usage_schema.create_all(connection)

    def is_empty(self) -> bool:
        """Whether nothing was ever counted.

        Raises:
            StoreError: The database is damaged, or cannot be reached.
        """
        with self._begin() as connection:
            return connection.execute(sa.select(usage.c.key_id).limit(1)).first() is None

    def add(self, rows: Iterable[KeyUsage]) -> None:
        """Add to what was used, all or nothing.

        Raises:
            StoreError: The database is damaged, or cannot be reached or written.
        """
        # In order, so that two servers that add to the same rows do not wait for each other.
        values = [_values(row) for row in sorted(rows, key=lambda row: (row.key_id, row.month))]
        if values:
            with self._begin() as connection:
                connection.execute(self._add, values)

    def read(self, month: str, key_id: str | None = None) -> list[KeyUsage]:
        """Return what each key, or one of them, has used in a month.

        Raises:
            StoreError: The database is damaged, or cannot be reached.
        """
        query = sa.select(usage).where(
            usage.c.month == month, sa.not_(usage.c.key_id.startswith(TAKEN_OVER, autoescape=True))
        )
        if key_id is not None:
            query = query.where(usage.c.key_id == key_id)
        with self._begin() as connection:
            rows = connection.execute(query.order_by(usage.c.key_id)).all()
        return [KeyUsage(row.key_id, row.month, row.requests, row.tokens) for row in rows]

    def take_over(self, store_id: str, rows: Iterable[KeyUsage]) -> bool:
        """Add what an older store has, once.

        Args:
            store_id: Tells the store from others.
            rows: What it has.

        Returns:
            Whether it was added now; false where it had been before.

        Raises:
            StoreError: The database is damaged, or cannot be reached or written.
        """
        mark = {"key_id": f"{TAKEN_OVER}{store_id}", "month": "", "requests": 0, "tokens": 0}
        with self._begin() as connection:
            known = sa.select(usage.c.key_id).where(usage.c.key_id == mark["key_id"])
            if connection.execute(known).first() is not None:
                return False
            values = [_values(row) for row in rows]
            connection.execute(sa.insert(usage), [mark])
            if values:
                connection.execute(self._add, values)
            return True

    def rename_keys(self, ids: Mapping[str, str]) -> None:
        """Count what keys have used under earlier ids to their present ones.

        Args:
            ids: Present ids by earlier ones.

        Raises:
            StoreError: The database is damaged, or cannot be reached or written.
        """
        with self._begin() as connection:
            for earlier, present in ids.items():
                # Deleted and read in one step, so that two servers do not both count the same rows.
                gone = sa.delete(usage).where(usage.c.key_id == earlier).returning(usage)
                rows = connection.execute(gone).all()
                values = [{**row._mapping, "key_id": present} for row in rows]
                if values:
                    connection.execute(self._add, values)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """Begin a transaction, committed at the end of the block.

        Raises:
            StoreError: The database failed.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            # The message of the database's own error may hold its address and user.
            raise StoreError(f"usage cannot be stored ({type(error.orig).__name__})") from error
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise StoreError(f"usage cannot be stored ({type(error).__name__})") from error


def _values(row: KeyUsage) -> dict[str, object]:
    return {
        "key_id": row.key_id,
        "month": row.month,
        "requests": row.requests,
        "tokens": row.tokens,
    }
