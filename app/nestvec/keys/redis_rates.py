"""Rates of keys that several servers share: token buckets in Redis, filled by Redis's own clock.

One script takes from a bucket in one step. Whoever asks waits for a fraction of a second at most: while Redis is away,
each server grants its own share instead, and looks again after a second.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from nestvec.errors import ConfigError
from nestvec.keys.buckets import BucketLevel
from nestvec.system.extras import how_to_install

if TYPE_CHECKING:
    from redis.commands.core import AsyncScript

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 0.5
RETRY_S: Final = 1.0
MAX_CONNECTIONS: Final = 4
PREFIX: Final = "nestvec:rate:"
SCHEMES: Final = ("redis://", "rediss://", "unix://")
# A bucket that is not there is full. It goes when it would be full again.
SCRIPT: Final = """
local limit, rate, cost, required = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local row = redis.call('HMGET', KEYS[1], 'left', 'at')
local left, at = tonumber(row[1] or limit), tonumber(row[2] or now)
left = math.min(limit, left + math.max(0, now - at) * rate)
local wait = 0
if left >= required then left = left - cost else wait = (required - left) / rate end
redis.call('HSET', KEYS[1], 'left', string.format('%.6f', left), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.min(86400 * 366, math.ceil((limit - left) / rate) + 60))
return {string.format('%.6f', left), string.format('%.6f', wait)}
"""
# A requirement that any bucket meets.
ANY: Final = -1e18


def _nothing(*, is_up: bool) -> None:
    """Tell nobody."""


class RedisRates:
    """Buckets in a Redis; for one event loop.

    Args:
        url: `redis://…`, `rediss://…` or `unix://…`; it may hold a password, and is never logged.
        clock: Gives monotonic time in seconds.

    Attributes:
        on_change: Called with whether Redis answers, when that changes.

    Raises:
        ConfigError: The URL is of another scheme, or the client is not installed.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        if not url.startswith(SCHEMES):
            raise ConfigError([f"rates_url: it must begin with {', '.join(SCHEMES)}"])
        try:
            from redis import asyncio as redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ModuleNotFoundError as error:
            raise ConfigError(
                [f"rates_url: Redis needs its client: {how_to_install('redis')}"]
            ) from error
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=TIMEOUT_S,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ConfigError(["rates_url: this is no URL of a Redis"]) from error
        self._failures = (redis.RedisError, OSError, TimeoutError)
        self._client: Any = redis.Redis(connection_pool=pool)
        self._script: AsyncScript = self._client.register_script(SCRIPT)
        self._clock = clock
        self._is_up, self._retry_at_s = True, 0.0
        self.on_change: Callable[..., None] = _nothing
        # What was last said of each bucket, and when: answers' headers tell it, and what was empty is not asked about.
        self._levels: dict[str, tuple[BucketLevel, float]] = {}

    @property
    def is_up(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self._is_up

    async def take(
        self, name: str, limit: float, rate: float, *, cost: float, required: float = ANY
    ) -> BucketLevel | None:
        """Take from a bucket if it holds what is required, else nothing.

        Args:
            name: Name of the bucket.
            limit: What it holds when it is full.
            rate: What flows into it in a second.
            cost: What is taken; less than 0 is given back.
            required: What must be there; by default it may hold whatever it does.

        Returns:
            What it holds afterwards; `wait_s` is above 0 where nothing was taken. None while Redis is away.
        """
        now_s = self._clock()
        if now_s < self._retry_at_s:
            return None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                left, wait_s = map(
                    float,
                    await self._script(
                        keys=[PREFIX + name],
                        args=[repr(limit), repr(rate), repr(cost), repr(required)],
                    ),
                )
        except self._failures as error:
            self._retry_at_s = self._clock() + RETRY_S
            if self._is_up:
                # Its message may hold the address and the user.
                log.warning("rates are not shared: Redis is away (%s)", type(error).__name__)
                self._set_up(is_up=False)
            return None
        if not self._is_up:
            log.warning("rates are shared again: Redis is back")
            self._set_up(is_up=True)
        level = BucketLevel(limit, left, (limit - left) / rate, wait_s)
        self._levels[name] = level, self._clock()
        return level

    def last_level(self, name: str, limit: float, rate: float) -> BucketLevel:
        """Return what a bucket should hold by what was last said of it; a full one where nothing was."""
        level, at_s = self._levels.get(name, (BucketLevel(limit, limit, 0.0, 0.0), 0.0))
        left = min(limit, level.left + (self._clock() - at_s) * rate)
        return BucketLevel(limit, left, (limit - left) / rate, max(0.0, (1.0 - left) / rate))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose(close_connection_pool=True)

    def _set_up(self, *, is_up: bool) -> None:
        self._is_up = is_up
        self.on_change(is_up=is_up)
