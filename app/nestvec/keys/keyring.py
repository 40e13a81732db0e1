"""Who may call, and how much: the keys of settings and of the file, their rates, and what they have used."""

import asyncio
import functools
import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nestvec.errors import AccessError, NotReadyError, RateLimitError
from nestvec.keys.buckets import BucketLevel, Buckets
from nestvec.keys.key_file_watch import KeyFileWatch, KeysMarker
from nestvec.keys.rates import KeyRates
from nestvec.keys.records import (
    DUMMY_SECRET,
    ID_BYTES,
    UNLIMITED,
    HashedSecret,
    KeyLimits,
    KeyRecord,
    split_key,
)
from nestvec.keys.usage import UsageCounter

# How often it is checked whether the file has changed.
CHECK_INTERVAL_S: Final = 2.0
# Size of the secret that ids of keys of the settings are made with, and its file's name in the data folder.
ID_SECRET_BYTES: Final = 32
ID_SECRET_NAME: Final = "key-id-secret"  # noqa: S105 - the name of its file


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
        is_named: Whether the settings name the file: then it has to be there.
        marker: Remembers that there are keys.
        admin_keys: Those of `keys` that may use the routes for operators too.
        id_secret: Gives the secret that ids of keys of the settings are made with: whoever sees an id cannot try
            guesses of the key on it. Called once, where there is such a key.
        rates: What is left of the rates and quotas of keys, and what they have used.
        clock: Gives monotonic time in seconds.
        wall_clock: Gives Unix time in seconds.
    """

    def __init__(  # noqa: PLR0913 - what is left out has a default
        self,
        keys: Sequence[str] = (),
        path: Path | None = None,
        *,
        is_named: bool = False,
        marker: KeysMarker | None = None,
        admin_keys: Sequence[str] = (),
        id_secret: Callable[[], bytes] = lambda: secrets.token_bytes(ID_SECRET_BYTES),
        rates: KeyRates | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = KeyFileWatch(path, is_named=is_named, marker=marker or KeysMarker())
        self.rates = rates or KeyRates(UsageCounter(None, wall_clock), Buckets(), clock=clock)
        self.usage = self.rates.usage
        self._clock, self._wall_clock = clock, wall_clock
        self._id_secret = functools.cache(id_secret)
        self._settings_keys: list[KeyRecord] = []
        self._next_check_s = 0.0
        self.set_settings_keys(keys, admin_keys)
        self.reload()

    @property
    def is_open(self) -> bool:
        """Whether callers need no key, as none was ever made.

        Where all keys of a file are revoked, or the file cannot be read, callers still need one.
        """
        return not self._settings_keys and not self._file.is_required

    @property
    def problem(self) -> str:
        """Why no key of the file is let in; "" where they are, or where there is no file. It names the file."""
        return self._file.problem

    @property
    def lets_nobody_in(self) -> bool:
        """Whether no key is good, as the file cannot be read and the settings have none."""
        return bool(self._file.problem) and not self._settings_keys

    @property
    def has_quotas(self) -> bool:
        """Whether a key has a quota of tokens a month."""
        return any(key.limits.monthly_tokens is not None for key in self._file.records.values())

    @property
    def shares_rates(self) -> bool:
        """Whether rates of requests may have to be asked for elsewhere, by `take_shared_request`."""
        return self.rates.redis is not None

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
        """Read the file if it has changed; while it cannot be read none of its keys is let in."""
        self._next_check_s = self._clock() + CHECK_INTERVAL_S
        self._file.reload()

    def refresh(self) -> None:
        """Read the file again if that was not done just now."""
        if self._clock() >= self._next_check_s:
            self.reload()

    def authenticate(self, key: str, requests: BucketLevel | None = None) -> KeyGrant:
        """Tell what a caller may do, and count its request; `check_requests` refuses it where that was one too many.

        Args:
            key: The key that was sent, "" for none.
            requests: What `take_shared_request` said, which has counted the request.

        Raises:
            AccessError: No key was sent, or a wrong one.
            NotReadyError: It may be a key of the file, which cannot be read.
        """
        self.refresh()
        if self.is_open:
            return ANONYMOUS
        if not key:
            raise AccessError(
                "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.",
                code="missing_api_key",
            )
        record = self._match(key)
        if record is None:
            if self._file.problem:
                raise NotReadyError(
                    "The server cannot read its API keys, and lets nobody in until it can: ask its operator.",
                    retry_after_s=CHECK_INTERVAL_S,
                    code="keys_unreadable",
                )
            raise AccessError("Incorrect API key provided.")
        rate = record.limits.requests_per_s
        if rate is None:
            self.usage.add(record.id, requests=1)
            return KeyGrant(record.id, record.limits, is_admin=record.is_admin)
        level = requests or self.rates.take_request(record.id, rate)
        if level.wait_s <= 0:
            self.usage.add(record.id, requests=1)
        return KeyGrant(record.id, record.limits, level, record.is_admin)

    async def take_shared_request(self, key: str) -> BucketLevel | None:
        """Count a request against a rate that servers share; None where its key has none, or they cannot now."""
        self.refresh()
        record = self._match(key) if key else None
        if record is None or record.limits.requests_per_s is None:
            return None
        return await self.rates.take_shared_request(record.id, record.limits.requests_per_s)

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

        While the file cannot be read, work that was let in goes on by what its key could do before.

        Raises:
            AccessError: The key was revoked.
            NotReadyError: The file cannot be read, and never could since the start.
        """
        if self.is_open or not key_id or any(key.id == key_id for key in self._settings_keys):
            return UNLIMITED
        record = self._file.records.get(key_id)
        if record is None and self._file.problem:
            raise NotReadyError("The server cannot read its API keys.", code="keys_unreadable")
        if record is None or record.revoked_s is not None:
            raise AccessError("The API key of this work was revoked.")
        return record.limits

    def name_of(self, key_id: str) -> str:
        """Return the name of a key of the file; "" where it has none."""
        record = self._file.records.get(key_id)
        return record.name if record is not None else ""

    def quota_of(self, key_id: str) -> int | None:
        """Return the tokens that a key may use in a month; None where they are not limited."""
        record = self._file.records.get(key_id)
        return record.limits.monthly_tokens if record is not None else None

    def check_month(self, key_id: str, limits: KeyLimits) -> None:
        """Refuse work where the month's tokens are used up.

        Raises:
            RateLimitError: They are used up.
            NotReadyError: What the key has used is not known.
        """
        self.rates.check_month(key_id, limits)

    def charge(self, key_id: str, limits: KeyLimits, tokens: int) -> None:
        """Count the tokens that a key has run; nothing where no key was needed."""
        self.rates.charge(key_id, limits, tokens)

    async def close(self) -> None:
        """Write what was used, and close the connections."""
        await self.rates.close()
        await asyncio.to_thread(self.usage.close)

    def _match(self, key: str) -> KeyRecord | None:
        """Find the key that a caller sent, in time that does not tell how near it was."""
        now_s = self._wall_clock()
        key_id, secret = split_key(key)
        # Of a file that cannot be read nothing holds: a key may have been revoked in it.
        record = None if self._file.problem else self._file.records.get(key_id)
        if record is not None and record.matches(secret, now_s):
            return record
        if record is None:
            DUMMY_SECRET.matches(secret, now_s)
        matches = [known for known in self._settings_keys if known.matches(key, now_s)]
        return matches[0] if matches else None


def settings_key_id(key: str, secret: bytes) -> str:
    """The id of a key of the settings in metrics, logs and stores: a digest of it, keyed with a secret."""
    return hashlib.blake2b(key.encode(), key=secret, digest_size=ID_BYTES).hexdigest()
