"""Settings to the keyring: keys, their rates, and where their usage is kept."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from nestvec.config.settings import Settings
from nestvec.jobs.database import make_engine
from nestvec.keys.buckets import Buckets
from nestvec.keys.key_file_watch import KeysMarker
from nestvec.keys.keyring import ID_SECRET_BYTES, ID_SECRET_NAME, Keyring
from nestvec.keys.months import MonthlyTokens
from nestvec.keys.rates import KeyRates
from nestvec.keys.redis_rates import RedisRates
from nestvec.keys.usage import UsageCounter
from nestvec.keys.usage_database import (
    DATABASE_NAME,
    read_usage,
    take_over_earlier,
    usage_engine,
)
from nestvec.keys.usage_table import UsageTable
from nestvec.observability.key_metrics import KeyMetrics
from nestvec.system.private_files import kept_secret

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SharedKeyFiles:
    """What the processes of one running server share about keys.

    Attributes:
        folder: Their private folder.
        buckets: A mapped file in which all of them count against rates.
        months: A mapped file in which all of them count against quotas.
    """

    folder: Path
    buckets: Path
    months: Path


def build_keyring(
    settings: Settings, metrics: KeyMetrics, shared: SharedKeyFiles | None
) -> Keyring:
    """Build the keyring: keys of the settings and of the file, with what they have used.

    Args:
        settings: All settings of the server.
        metrics: Says whether keys can be read, usage be written, and rates be shared.
        shared: What all processes of the server share; None: there is one process.

    Raises:
        ConfigError: The Redis of the rates cannot be used.
    """
    folders = (settings.data_dir, *(() if shared is None else (shared.folder,)))
    months = MonthlyTokens(None if shared is None else shared.months)
    buckets = Buckets(None if shared is None else shared.buckets)
    redis = None
    if settings.rates_url is not None:
        redis = RedisRates(settings.rates_url.get_secret_value())
        redis.on_change = metrics.note_rates

    def open_table() -> UsageTable:
        return _open_table(settings, keyring)

    usage = UsageCounter(open_table, months=months, is_needed=lambda: not keyring.is_open)
    keyring = Keyring(
        settings.secrets,
        settings.keys_path,
        is_named=settings.keys_file is not None,
        marker=KeysMarker(folders),
        admin_keys=settings.admin_secrets,
        id_secret=partial(kept_secret, folders, ID_SECRET_NAME, ID_SECRET_BYTES),
        rates=KeyRates(usage, buckets, redis, replicas=settings.replicas),
    )
    metrics.watch(keyring)
    return keyring


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


def _open_table(settings: Settings, keyring: Keyring) -> UsageTable:
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
