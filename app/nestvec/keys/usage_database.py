"""Opens the table of usage, and takes over the usage.db that servers had until 0.1."""

import contextlib
import logging
import secrets
import sqlite3
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from nestvec.errors import StoreError
from nestvec.keys.key_usage import KeyUsage
from nestvec.keys.usage_table import UsageTable
from nestvec.system.sql_engines import BUSY_TIMEOUT_MS, sqlite_engine
from nestvec.system.sqlite import open_read_only

log = logging.getLogger(__name__)

EARLIER_NAME: Final = "usage.db"  # in the data folder
TAKEN_OVER_SUFFIX: Final = ".taken-over"
DATABASE_NAME: Final = "jobs.db"  # in the data folder: files and batches have it too


def usage_engine(path: Path) -> sa.Engine:
    """Make what connects to a database in a file, private and made where it is absent, for one thread at a time.

    A commit may be lost by a power cut: it is a second's counting.

    Raises:
        StoreError: The file or its folder cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        raise StoreError(f"{path}: usage cannot be stored ({error.strerror})") from error
    return sqlite_engine(sa.URL.create("sqlite", database=str(path)), synchronous="NORMAL")


def take_over_earlier(folder: Path, table: UsageTable) -> None:
    """Add what an earlier version's usage.db has to the table, once, and rename that file.

    Raises:
        StoreError: The file is damaged, or either cannot be read or written. Nothing is reset: the months' quotas would
            be.
    """
    path = folder / EARLIER_NAME
    if not path.exists():
        return
    try:
        store_id, rows = _read_earlier(path)
        if table.take_over(store_id, rows):
            log.warning("usage of %s was taken over", path)
        path.rename(path.with_name(path.name + TAKEN_OVER_SUFFIX))
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except (sqlite3.Error, OSError) as error:
        if not path.exists():
            return  # another process of the server was faster
        raise StoreError(
            f"{path} cannot be taken over ({type(error).__name__}): mend it, or move it away to count the month anew"
        ) from error


def read_usage(folder: Path, month: str) -> dict[str, tuple[int, int]]:
    """Return requests and tokens of each key in a month, by the files of a data folder, changing nothing.

    Args:
        folder: The data folder.
        month: The month, as 2026-11.

    Raises:
        StoreError: A file is damaged.
    """
    sums: dict[str, tuple[int, int]] = {}
    query = "select key_id, requests, tokens from usage where month = ?"
    for path in (folder / DATABASE_NAME, folder / EARLIER_NAME):
        if not path.exists():
            continue
        try:
            with contextlib.closing(open_read_only(path)) as connection:
                has_table = connection.execute(
                    "select 1 from sqlite_master where type = 'table' and name = 'usage'"
                ).fetchone()
                for key_id, requests, tokens in (
                    connection.execute(query, (month,)) if has_table else ()
                ):
                    known = sums.get(key_id, (0, 0))
                    sums[key_id] = known[0] + requests, known[1] + tokens
        except sqlite3.Error as error:
            raise StoreError(
                f"{path}: usage cannot be read ({type(error).__name__}); mend it, or restore it from a backup"
            ) from error
    return sums


def _read_earlier(path: Path) -> tuple[str, list[KeyUsage]]:
    """Read an earlier version's usage, with an id that the file is given before.

    By the id the same file is known again where the server ended between adding its rows and renaming it.
    """
    # Never made anew: another process may have taken it over just now.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    opened = sqlite3.connect(uri, timeout=BUSY_TIMEOUT_MS / 1000, uri=True)
    with contextlib.closing(opened) as connection:
        damage = connection.execute("pragma quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError("damaged")
        with connection:
            connection.execute("begin immediate")
            connection.execute("create table if not exists store (id text)")
            known = connection.execute("select id from store").fetchone()
            store_id = str(known[0]) if known else secrets.token_hex(16)
            if not known:
                connection.execute("insert into store values (?)", (store_id,))
        has_table = connection.execute(
            "select 1 from sqlite_master where type = 'table' and name = 'usage'"
        ).fetchone()
        query = "select key_id, month, requests, tokens from usage"
        return store_id, [KeyUsage(*row) for row in connection.execute(query)] if has_table else []
