"""Who is let in, and how much of what: the keys of settings and of the file, their rates, and what they have used."""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nestvec.errors import AccessError, ConfigError, RateLimitError
from nestvec.keys.buckets import Buckets, Level
from nestvec.keys.records import (
    ID_BYTES,
    NOBODY,
    UNLIMITED,
    KeyFile,
    KeyLimits,
    KeyRecord,
    Secret,
    split_key,
)
from nestvec.keys.usage import Usage

log = logging.getLogger(__name__)

LOOK_S: Final = 2.0  # how often the file is looked at
MINUTE_S: Final = 60.0
MONTH_RETRY_S: Final = 120.0  # the most that clients heed


@dataclass(frozen=True, slots=True)
class Pass:
    """A caller who was let in.

    Attributes:
        key_id: Whose key it is; "" where keys are not asked for.
        requests: What is left of its requests; None where they are not limited.
    """

    key_id: str = ""
    limits: KeyLimits = UNLIMITED
    requests: Level | None = None


EVERYONE: Final = Pass()


class Keyring:
    """Checks keys and counts what they use; for one thread.

    Args:
        keys: From the settings: let in without limits.
        path: The file of keys; read again whenever it has changed.
        buckets: Rates of keys.
        usage: Sums of keys.
        clock: Monotonic seconds.
        wall: Unix seconds.
    """

    def __init__(
        self,
        keys: Sequence[str] = (),
        path: Path | None = None,
        *,
        buckets: Buckets | None = None,
        usage: Usage | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._buckets = buckets or Buckets()
        self.usage = usage or Usage(None, wall)
        self._clock, self._wall = clock, wall
        self._plain: list[KeyRecord] = []
        self._records: dict[str, KeyRecord] = {}
        self._has_file = False
        self._seen: tuple[int, int] | None = None
        self._look_at_s = 0.0
        self.set_plain(keys)
        self.reload()

    @property
    def is_open(self) -> bool:
        """Whether every caller is let in: no key was ever made. A file whose keys are all revoked lets nobody in."""
        return not self._plain and not self._has_file

    def set_plain(self, keys: Sequence[str]) -> None:
        """Keys of the settings from now on."""
        self._plain = [
            KeyRecord(plain_id(key), "", 0.0, (Secret.of(key),)) for key in dict.fromkeys(keys)
        ]

    def reload(self) -> None:
        """Read the file if it has changed; where it cannot be read the keys known so far stay good."""
        self._look_at_s = self._clock() + LOOK_S
        if self._path is None:
            return
        try:
            found = self._path.stat()
        except OSError:
            return  # there is none yet, or it is out of reach for the moment
        seen = found.st_mtime_ns, found.st_ino
        if seen == self._seen:
            return
        try:
            self._records = KeyFile.read(self._path).records
        except ConfigError as error:
            log.error("the keys stay as they were: %s", error.message)  # noqa: TRY400 - whole
            return
        self._seen, self._has_file = seen, True

    def enter(self, given: str) -> Pass:
        """Whose a key is, with the request counted: `check_requests` says whether that was one too many.

        Args:
            given: The key sent, "" for none.

        Raises:
            AccessError: No key, or a wrong one.
        """
        if self._clock() >= self._look_at_s:
            self.reload()
        if self.is_open:
            return EVERYONE
        if not given:
            raise AccessError(
                "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.",
                code="missing_api_key",
            )
        record = self._match(given)
        if record is None:
            raise AccessError("Incorrect API key provided.")
        rate = record.limits.requests_per_s
        if rate is None:
            self.usage.add(record.id, requests=1)
            return Pass(record.id, record.limits)
        level = self._buckets.take(f"r{record.id}", max(1.0, rate), rate, self._clock(), cost=1.0)
        if level.wait_s <= 0:
            self.usage.add(record.id, requests=1)
        return Pass(record.id, record.limits, level)

    @staticmethod
    def check_requests(found: Pass) -> None:
        """Refuse a request that was one too many.

        Raises:
            RateLimitError: It was.
        """
        level = found.requests
        if level is not None and level.wait_s > 0:
            raise RateLimitError(
                f"Rate limit reached: {found.limits.requests_per_s:g} requests a second.",
                retry_after_s=level.wait_s,
                key_id=found.key_id,
            )

    def limits_of(self, key_id: str) -> KeyLimits:
        """What a key may do; for work that goes on after its request, such as batches.

        Raises:
            AccessError: It is not good any more.
        """
        if self.is_open or not key_id or any(one.id == key_id for one in self._plain):
            return UNLIMITED
        record = self._records.get(key_id)
        if record is None or record.revoked_s is not None:
            raise AccessError("The API key of this work was revoked.")
        return record.limits

    def check_month(self, key_id: str, limits: KeyLimits) -> None:
        """Refuse where the month's tokens are used up.

        Raises:
            RateLimitError: They are.
        """
        most = limits.monthly_tokens
        if most is not None and self.usage.tokens(key_id) >= most:
            raise RateLimitError(
                f"You exceeded your current quota of {most} tokens a month.",
                retry_after_s=MONTH_RETRY_S,
                key_id=key_id,
                of="quota",
            )

    def check_tokens(self, key_id: str, limits: KeyLimits) -> None:
        """Refuse where the key has used up its tokens, of the minute or the month.

        Raises:
            RateLimitError: It has.
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

    def tokens_left(self, key_id: str, limits: KeyLimits) -> Level | None:
        """What is left of a key's tokens a minute; None where they are not limited."""
        most = limits.tokens_per_min
        if most is None:
            return None
        return self._buckets.look(_tokens(key_id), most, most / MINUTE_S, self._clock())

    def charge(self, key_id: str, limits: KeyLimits, tokens: int) -> None:
        """A key has run so many tokens."""
        if not key_id:
            return
        self.usage.add(key_id, tokens=tokens)
        if limits.tokens_per_min is not None:
            most = limits.tokens_per_min
            self._buckets.charge(_tokens(key_id), most, most / MINUTE_S, self._clock(), tokens)

    def _match(self, given: str) -> KeyRecord | None:
        """The key that a caller sent, in time that does not tell how near it was."""
        now_s = self._wall()
        number, secret = split_key(given)
        record = self._records.get(number)
        if record is not None and record.matches(secret, now_s):
            return record
        if record is None:
            NOBODY.matches(secret, now_s)
        found = [one for one in self._plain if one.matches(given, now_s)]
        return found[0] if found else None


def plain_id(key: str) -> str:
    """By which a key of the settings is known in metrics and logs."""
    return hashlib.blake2b(key.encode(), digest_size=ID_BYTES).hexdigest()


def _tokens(key_id: str) -> str:
    return f"t{key_id}"
