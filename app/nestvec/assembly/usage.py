"""Settings to the table of usage, which only a server with keys opens."""

import logging

import sqlalchemy as sa

from nestvec.config.settings import Settings
from nestvec.jobs.database import make_engine
from nestvec.keys.keyring import Keyring
from nestvec.keys.usage_database import (
    DATABASE_NAME,
    read_usage,
    take_over_earlier,
    usage_engine,
)
from nestvec.keys.usage_table import UsageTable

log = logging.getLogger(__name__)


def usage_of_month(settings: Settings, month: str) -> dict[str, tuple[int, int]]:
    """Return requests and tokens of each key in a month, changing nothing.

    Args:
        settings: They name the database.
        month: The month, as 2026-11.

    Raises:
        StoreError: The database cannot be read.
    """
    if not settings.database_url.get_secret_value():
        return read_usage(settings.data_dir, month)
    table = UsageTable(_engine(settings))
    try:
        table.make()
        return {row.key_id: (row.requests, row.tokens) for row in table.read(month)}
    finally:
        table.close()


def _engine(settings: Settings) -> sa.Engine:
    """Return an engine for the table of usage, in the database of files and batches."""
    url = settings.database_url.get_secret_value()
    return make_engine(url) if url else usage_engine(settings.data_dir / DATABASE_NAME)


def open_table(settings: Settings, keyring: Keyring) -> UsageTable:
    """Open the table of usage; what an earlier version has kept is taken over once.

    Raises:
        StoreError: It cannot be opened, or is damaged.
    """
    table = UsageTable(_engine(settings))
    try:
        table.make()
        take_over_earlier(settings.data_dir, table)
        if settings.secrets:
            table.rename_keys(keyring.earlier_ids(settings.secrets))
        is_empty = table.is_empty()
    except BaseException:
        table.close()
        raise
    if is_empty and keyring.has_quotas:
        log.warning("usage is counted anew: there was none yet in %s", settings.data_dir)
    return table
