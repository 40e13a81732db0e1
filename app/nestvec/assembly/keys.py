"""Settings to the keyring: keys, their rates, and where their usage is kept."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nestvec.config.settings import Settings
from nestvec.keys.buckets import Buckets
from nestvec.keys.key_file_watch import KeysMarker
from nestvec.keys.keyring import ID_SECRET_BYTES, ID_SECRET_NAME, Keyring
from nestvec.keys.months import MonthlyTokens
from nestvec.keys.rates import KeyRates
from nestvec.keys.redis_rates import RedisRates
from nestvec.keys.usage import UsageCounter
from nestvec.observability.key_metrics import KeyMetrics
from nestvec.system.private_files import kept_secret

if TYPE_CHECKING:
    from nestvec.keys.usage_table import UsageTable


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

    def open_usage() -> "UsageTable":
        # Imported once there is a key: it brings SQLAlchemy, a tenth of a start's imports.
        from nestvec.assembly.usage import open_table

        return open_table(settings, keyring)

    usage = UsageCounter(open_usage, months=months, is_needed=lambda: not keyring.is_open)
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
