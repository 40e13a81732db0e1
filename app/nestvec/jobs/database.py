"""Opens the database of the store: SQLite in WAL mode, brought up to the newest version of its tables."""

from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from nestvec.errors import StoreError

# The newest of the migrations.
NEWEST_REVISION: Final = "0001"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
# How long a transaction waits for another; they take milliseconds.
BUSY_TIMEOUT_MS: Final = 10_000


def open_database(path: Path) -> sa.Engine:
    """Open the database of a store; tables are made in a new one, and migrated in an older one.

    Raises:
        StoreError: It cannot be opened, or a newer version has made it.
    """
    engine = sa.create_engine(
        f"sqlite:///{path}",
        poolclass=sa.pool.StaticPool,
        # It is used by one thread at a time, but not always by the same.
        connect_args={"check_same_thread": False},
    )
    sa.event.listen(engine, "connect", _make_durable)
    sa.event.listen(engine, "begin", _begin_immediate)
    try:
        _migrate(engine, path.parent)
    except StoreError:
        engine.dispose()
        raise
    except sa.exc.DatabaseError as error:
        engine.dispose()
        raise StoreError(f"{path}: cannot be opened ({error.__cause__})") from error
    return engine


def _make_durable(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's
    """Set a new connection up so that what is committed survives a power cut."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.close()
    # The driver begins no transaction by itself: `_begin_immediate` does.
    connection.isolation_level = None


def _begin_immediate(connection: sa.Connection) -> None:
    """Begin a transaction by taking the write lock.

    What the transaction has read is then still so when it writes, whoever else writes too.
    """
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(engine: sa.Engine, folder: Path) -> None:
    """Bring the tables of an older version up to this one.

    Raises:
        StoreError: A newer version has made them.
    """
    version = sa.table("alembic_version", sa.column("version_num"))
    with engine.connect() as connection:
        if sa.inspect(connection).has_table("alembic_version"):
            revision = connection.execute(sa.select(version)).scalar()
            if revision == NEWEST_REVISION:
                return
    # Imported where needed: only the first start of a version needs it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StoreError(f"{folder}: made by a newer version of nestvec") from error
