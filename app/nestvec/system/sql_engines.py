"""SQLAlchemy's engines over SQLite files, as several threads and processes can use them."""

from typing import Any, Final, Literal

import sqlalchemy as sa

# How long a transaction waits for another; they take milliseconds.
BUSY_TIMEOUT_MS: Final = 10_000
POSTGRES: Final = "postgresql"


def sqlite_engine(url: str | sa.URL, *, synchronous: Literal["NORMAL", "FULL"]) -> sa.Engine:
    """Make what connects to a SQLite database, for one thread at a time, without connecting yet.

    Each transaction takes the write lock at its beginning: what it has read is then still so when it writes, whoever
    else writes too.

    Args:
        url: The database.
        synchronous: "FULL" where what is committed must survive a power cut; with "NORMAL" the last commits may be
            lost, and the file stays whole (https://sqlite.org/wal.html).
    """
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.StaticPool,
        # It is used by one thread at a time, but not always by the same.
        connect_args={"check_same_thread": False},
    )

    def set_up(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        cursor.close()
        # The driver begins no transaction by itself: `_begin_immediate` does.
        connection.isolation_level = None

    sa.event.listen(engine, "connect", set_up)
    sa.event.listen(engine, "begin", _begin_immediate)
    return engine


def is_shared(engine: sa.Engine) -> bool:
    """Whether servers on several machines can use the database."""
    return engine.dialect.name == POSTGRES


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
