"""Who may call, and how much: the keys of settings and of the file, their rates, and what they have used."""

import functools
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nestvec.errors import AccessError, ConfigError, RateLimitError
from nestvec.keys.buckets import BucketLevel, Buckets
from nestvec.keys.records import (
    DUMMY_SECRET,
    ID_BYTES,
    UNLIMITED,
    HashedSecret,
    KeyFile,
    KeyLimits,
    KeyRecord,
    split_key,
)
from nestvec.keys.usage import UsageCounter

log = logging.getLogger(__name__)

# How often it is checked whether the file has changed.
CHECK_INTERVAL_S: Final = 2.0
MINUTE_S: Final = 60.0
# Size of the secret that ids of keys of the settings are made with, and its file's name in the data folder.
ID_SECRET_BYTES: Final = 32
ID_SECRET_NAME: Final = "key-id-secret"  # noqa: S105 - the name of its file
# The longest Retry-After that clients heed.
MONTH_RETRY_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What an authenticated caller may do.

    Attributes:
        key_id: Id of the key; "" where no key is needed.
        limits: Limits of the key.
        requests: What is left of its rate of requests; None where that is not limited.
        is_admin: Whether it may use the routes for operators.
    """

    key_id: str = ""
    limits: KeyLimits = UNLIMITED
    requests: BucketLevel | None = None
    is_admin: bool = False


# Where no key is needed, whoever reaches the server is its operator.
ANONYMOUS: Final = KeyGrant(is_admin=True)


class Keyring:
    """Checks keys and counts what they use; for one thread.

    Args:
        keys: Keys of the settings, which have no limits.
        path: The file of keys; read again whenever it has changed.
        admin_keys: Those of `keys` that may use the routes for operators too.
        id_secret: Gives the secret that ids of keys of the settings are made with: whoever sees an id cannot try
            guesses of the key on it. Called once, where there is such a key.
        buckets: What is left of the rates of keys.
        usage: What keys have used.
        clock: Gives monotonic time in seconds.
        wall_clock: Gives Unix time in seconds.
    """

    def __init__(  # noqa: PLR0913 - what is left out has a default
        self,
        keys: Sequence[str] = (),
        path: Path | None = None,
        *,
        admin_keys: Sequence[str] = (),
        id_secret: Callable[[], bytes] = lambda: secrets.token_bytes(ID_SECRET_BYTES),
        buckets: Buckets | None = None,
        usage: UsageCounter | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._buckets = buckets or Buckets()
        self.usage = usage or UsageCounter(None, wall_clock)
        self._clock, self._wall_clock = clock, wall_clock
        self._id_secret = functools.cache(id_secret)
        self._settings_keys: list[KeyRecord] = []
        self._records: dict[str, KeyRecord] = {}
        self._has_file = False
        self._file_version: tuple[int, int] | None = None
        self._next_check_s = 0.0
        self.set_settings_keys(keys, admin_keys)
        self.reload()

    @property
    def is_open(self) -> bool:
        """Whether callers need no key, as none was ever made.

        Where all keys of a file are revoked, callers still need one.
        """
        return not self._settings_keys and not self._has_file

    def set_settings_keys(self, keys: Sequence[str], admin_keys: Sequence[str] = ()) -> None:
        """Replace the keys of the settings.

        Args:
            keys: All of them.
            admin_keys: Those of them that may use the routes for operators too.
        """
        self._settings_keys = [
            KeyRecord(
                settings_key_id(key, self._id_secret()),
                "",
                0.0,
                (HashedSecret.of(key),),
                is_admin=key in admin_keys,
            )
            for key in dict.fromkeys(keys)
        ]

    def earlier_ids(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the ids that keys of the settings had until 0.1, plain digests, each with the id it has now.

        What was stored under them is taken over once.
        """
        return {
            settings_key_id(key, b""): settings_key_id(key, self._id_secret())
            for key in dict.fromkeys(keys)
        }

    def reload(self) -> None:
        """Read the file if it has changed; where it cannot be read the keys known so far stay good."""
        self._next_check_s = self._clock() + CHECK_INTERVAL_S
        if self._path is None:
            return
        try:
            status = self._path.stat()
        except OSError:
            return  # there is none yet, or it is out of reach for the moment
        version = status.st_mtime_ns, status.st_ino
        if version == self._file_version:
            return
        try:
            self._records = KeyFile.read(self._path).records
        except ConfigError as error:
            log.error("the keys stay as they were: %s", error.message)  # noqa: TRY400 - whole
            return
        self._file_version, self._has_file = version, True

    def authenticate(self, key: str) -> KeyGrant:
        """Tell what a caller may do, and count its request; `check_requests` refuses it where that was one too many.

        Args:
            key: The key that was sent, "" for none.

        Raises:
            AccessError: No key was sent, or a wrong one.
        """
        if self._clock() >= self._next_check_s:
            self.reload()
        if self.is_open:
            return ANONYMOUS
        if not key:
            raise AccessError(
                "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.",
                code="missing_api_key",
            )
        record = self._match(key)
        if record is None:
            raise AccessError("Incorrect API key provided.")
        rate = record.limits.requests_per_s
        if rate is None:
            self.usage.add(record.id, requests=1)
            return KeyGrant(record.id, record.limits, is_admin=record.is_admin)
        level = self._buckets.take(f"r{record.id}", max(1.0, rate), rate, self._clock(), cost=1.0)
        if level.wait_s <= 0:
            self.usage.add(record.id, requests=1)
        return KeyGrant(record.id, record.limits, level, record.is_admin)

    @staticmethod
    def check_requests(grant: KeyGrant) -> None:
        """Refuse a request that was one too many.

        Raises:
            RateLimitError: The key's rate of requests is used up.
        """
        level = grant.requests
        if level is not None and level.wait_s > 0:
            raise RateLimitError(
                f"Rate limit reached: {grant.limits.requests_per_s:g} requests a second.",
                retry_after_s=level.wait_s,
                key_id=grant.key_id,
            )

    def limits_of(self, key_id: str) -> KeyLimits:
        """What a key may do; for work that goes on after its request, such as batches.

        Raises:
            AccessError: The key was revoked.
        """
        if self.is_open or not key_id or any(key.id == key_id for key in self._settings_keys):
            return UNLIMITED
        record = self._records.get(key_id)
        if record is None or record.revoked_s is not None:
            raise AccessError("The API key of this work was revoked.")
        return record.limits

    def check_month(self, key_id: str, limits: KeyLimits) -> None:
        """Refuse work where the month's tokens are used up.

        Raises:
            RateLimitError: They are used up.
        """
        quota = limits.monthly_tokens
        if quota is not None and self.usage.tokens_this_month(key_id) >= quota:
            raise RateLimitError(
                f"You exceeded your current quota of {quota} tokens a month.",
                retry_after_s=MONTH_RETRY_S,
                key_id=key_id,
                of="quota",
            )

    def check_tokens(self, key_id: str, limits: KeyLimits) -> None:
        """Refuse work where the key has used up its tokens, of the minute or the month.

        Raises:
            RateLimitError: They are used up.
        """
        self.check_month(key_id, limits)
        level = self.tokens_left(key_id, limits)
        if level is not None and level.wait_s > 0:
            raise RateLimitError(
                f"Rate limit reached: {limits.tokens_per_min} tokens a minute.",
                retry_after_s=level.wait_s,
                key_id=key_id,
                of="tokens",
            )

    def tokens_left(self, key_id: str, limits: KeyLimits) -> BucketLevel | None:
        """What is left of a key's tokens a minute; None where they are not limited."""
        limit = limits.tokens_per_min
        if limit is None:
            return None
        return self._buckets.peek(_token_bucket(key_id), limit, limit / MINUTE_S, self._clock())

    def charge(self, key_id: str, limits: KeyLimits, tokens: int) -> None:
        """Count the tokens that a key has run; nothing where no key was needed."""
        if not key_id:
            return
        self.usage.add(key_id, tokens=tokens)
        if limits.tokens_per_min is not None:
            limit, now_s = limits.tokens_per_min, self._clock()
            self._buckets.charge(_token_bucket(key_id), limit, limit / MINUTE_S, now_s, tokens)

    def _match(self, key: str) -> KeyRecord | None:
        """Find the key that a caller sent, in time that does not tell how near it was."""
        now_s = self._wall_clock()
        key_id, secret = split_key(key)
        record = self._records.get(key_id)
        if record is not None and record.matches(secret, now_s):
            return record
        if record is None:
            DUMMY_SECRET.matches(secret, now_s)
        matches = [known for known in self._settings_keys if known.matches(key, now_s)]
        return matches[0] if matches else None


def settings_key_id(key: str, secret: bytes) -> str:
    """The id of a key of the settings in metrics, logs and stores: a digest of it, keyed with a secret."""
    return hashlib.blake2b(key.encode(), key=secret, digest_size=ID_BYTES).hexdigest()


def _token_bucket(key_id: str) -> str:
    """The name of the bucket of a key's tokens a minute."""
    return f"t{key_id}"
