"""Opens the database of the store, brought up to the newest version of its tables: SQLite by default, or PostgreSQL.

Both give the store the same two promises: a transaction that begins with `begin_writing` reads what is still so when it
writes, and what was committed survives a crash.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from nestvec.errors import ConfigError, StoreError
from nestvec.system.extras import how_to_install
from nestvec.system.sql_engines import BUSY_TIMEOUT_MS, POSTGRES, is_shared, sqlite_engine

# The newest of the migrations.
NEWEST_REVISION: Final = "0003"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_MS: Final = 60_000
# Replicas that start together migrate one after the other. The number is this project's own.
MIGRATION_LOCK: Final = 5_317_204_118
SCHEMES: Final = ("sqlite", POSTGRES)


def open_database(url: str) -> sa.Engine:
    """Open the database of a store; tables are made in a new one, and migrated in an older one.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://user:password@host/database`.

    Raises:
        ConfigError: The URL is of another database, or its driver is not installed.
        StoreError: It cannot be opened, or a newer version has made it.
    """
    engine = make_engine(url)
    place = engine.url.render_as_string(hide_password=True)
    try:
        _migrate(engine, place)
    except StoreError:
        engine.dispose()
        raise
    except sa.exc.DatabaseError as error:
        engine.dispose()
        raise StoreError(f"{place}: cannot be opened ({type(error.orig).__name__})") from error
    return engine


@contextmanager
def begin_writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Begin a transaction that writes; it is committed at the end of the block.

    In SQLite it takes the one write lock at once. In PostgreSQL rows that decide about what is written are read
    `FOR UPDATE`, which SQLite passes over.

    Raises:
        StoreError: The database cannot be reached, is full, or gave up waiting for another transaction.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except sa.exc.DBAPIError as error:
        raise store_error(error) from error


@contextmanager
def begin_reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Begin to read.

    Raises:
        StoreError: The database cannot be reached.
    """
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.DBAPIError as error:
        raise store_error(error) from error


def store_error(error: sa.exc.DBAPIError) -> StoreError:
    """Return the error of the store for one of the database, whose own message may quote what was to be stored."""
    return StoreError(f"The database of files and batches failed ({type(error.orig).__name__}).")


def make_engine(url: str) -> sa.Engine:
    """Make what connects to a database, without connecting yet.

    Raises:
        ConfigError: The URL is of another database, or its driver is not installed.
    """
    try:
        name = sa.engine.make_url(url).get_backend_name()
    except sa.exc.ArgumentError as error:
        raise ConfigError(["database_url: this is no URL of a database"]) from error
    if name not in SCHEMES:
        raise ConfigError(
            ["database_url: the database must be sqlite:///… or postgresql+psycopg://…"]
        )
    if name == POSTGRES:
        return _postgres_engine(url)
    return sqlite_engine(url, synchronous="FULL")


def _postgres_engine(url: str) -> sa.Engine:
    timeouts = f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={BUSY_TIMEOUT_MS}"
    try:
        return sa.create_engine(
            url,
            # A connection that the server has closed, at its restart say, is replaced rather than used.
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "options": timeouts},
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            [f"database_url: PostgreSQL needs psycopg: {how_to_install('postgres')}"]
        ) from error


def _migrate(engine: sa.Engine, place: str) -> None:
    """Bring the tables of an older version up to this one.

    Raises:
        StoreError: A newer version has made them.
    """
    if _revision(engine) == NEWEST_REVISION:
        return
    # Imported where needed: only the first start of a version needs it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        if is_shared(engine):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StoreError(f"{place}: made by a newer version of nestvec") from error


def _revision(engine: sa.Engine) -> str | None:
    """The version of the tables; None where there are none."""
    version = sa.table("alembic_version", sa.column("version_num"))
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        revision: str | None = connection.execute(sa.select(version)).scalar()
        return revision
