"""The rates and quotas of keys: what is taken when a request is admitted, and given back where its work did not run.

A request passes while anything is left and then takes all that it needs, in one step: whatever many do at once, a rate
is overshot by one request at most.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nestvec.errors import RateLimitError
from nestvec.keys.buckets import BucketLevel, Buckets
from nestvec.keys.records import KeyLimits
from nestvec.keys.redis_rates import RedisRates
from nestvec.keys.usage import UsageCounter

MINUTE_S: Final = 60.0
# The longest Retry-After that clients heed.
MONTH_RETRY_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class TokenAdmission:
    """Tokens that were taken for work that is about to run.

    Attributes:
        key_id: Id of the key.
        limits: Its limits.
        tokens: How many tokens.
    """

    key_id: str
    limits: KeyLimits
    tokens: int


class KeyRates:
    """Takes what keys use from their rates and quotas.

    Args:
        usage: Counts what was used, and knows the months.
        buckets: Rates of this server.
        redis: Rates that several servers share; None where each has its own.
        replicas: How many servers share the keys' limits: each grants its part of what they do not count together.
        clock: Gives monotonic time in seconds.
    """

    def __init__(
        self,
        usage: UsageCounter,
        buckets: Buckets,
        redis: RedisRates | None = None,
        *,
        replicas: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.usage, self.redis = usage, redis
        self._buckets, self._replicas, self._clock = buckets, replicas, clock
        self._tasks: set[asyncio.Task[BucketLevel | None]] = set()

    def take_request(self, key_id: str, rate: float) -> BucketLevel:
        """Count a request against this server's part of a rate of requests."""
        share = rate / self._replicas
        return self._buckets.take(f"r{key_id}", max(1.0, share), share, self._clock(), cost=1.0)

    async def take_shared_request(self, key_id: str, rate: float) -> BucketLevel | None:
        """Count a request against a rate that servers share; None where they do not just now."""
        if self.redis is None:
            return None
        return await self.redis.take(f"r{key_id}", max(1.0, rate), rate, cost=1.0, required=1.0)

    def check_month(self, key_id: str, limits: KeyLimits) -> None:
        """Refuse work where the month's tokens are used up.

        Raises:
            RateLimitError: They are used up.
            NotReadyError: What the key has used is not known.
        """
        if limits.monthly_tokens is not None:
            self._admit_month(key_id, limits, 0)

    def check(self, key_id: str, limits: KeyLimits) -> None:
        """Refuse work where the key has used up its tokens, of the minute or the month, before it is looked at.

        Raises:
            RateLimitError: They are used up.
            NotReadyError: What the key has used is not known.
        """
        self.check_month(key_id, limits)
        level = self.tokens_left(key_id, limits)
        if level is not None and level.wait_s > 0:
            raise _too_many_tokens(key_id, limits, level)

    async def admit(self, key_id: str, limits: KeyLimits, tokens: int) -> TokenAdmission:
        """Take tokens that are about to run; `settle` counts them, or `give_back` takes them back.

        Raises:
            RateLimitError: The key has used up its tokens, of the minute or the month.
            NotReadyError: What the key has used is not known.
        """
        admission = TokenAdmission(key_id, limits, tokens)
        if limits.monthly_tokens is not None:
            self._admit_month(key_id, limits, tokens)
        limit = limits.tokens_per_min
        if limit is not None:
            try:
                level = await self._take_tokens(key_id, limit, tokens)
            except BaseException:
                self._give_back_month(admission)
                raise
            if level.wait_s > 0:
                self._give_back_month(admission)
                raise _too_many_tokens(key_id, limits, level)
        return admission

    def settle(self, admission: TokenAdmission) -> None:
        """Count tokens that were admitted, and have run."""
        if admission.key_id:
            tokens = admission.tokens
            has_quota = admission.limits.monthly_tokens is not None
            self.usage.add(admission.key_id, tokens=tokens, admitted=tokens if has_quota else 0)

    def give_back(self, admission: TokenAdmission) -> None:
        """Give tokens back that were admitted, and did not run."""
        self._give_back_month(admission)
        self._take_later(admission.key_id, admission.limits, -admission.tokens)

    def charge(self, key_id: str, limits: KeyLimits, tokens: int) -> None:
        """Count tokens that have run and were not admitted, whatever is left; nothing where no key was needed."""
        if not key_id:
            return
        has_quota = limits.monthly_tokens is not None
        if has_quota:
            self.usage.add_to_month(key_id, tokens)
        self.usage.add(key_id, tokens=tokens, admitted=tokens if has_quota else 0)
        self._take_later(key_id, limits, tokens)

    def tokens_left(self, key_id: str, limits: KeyLimits) -> BucketLevel | None:
        """What is left of a key's tokens a minute, of shared ones by what was last said; None: not limited."""
        limit = limits.tokens_per_min
        if limit is None:
            return None
        if self.redis is not None and self.redis.is_up:
            return self.redis.last_level(_token_bucket(key_id), limit, limit / MINUTE_S)
        share = limit / self._replicas
        return self._buckets.peek(_token_bucket(key_id), share, share / MINUTE_S, self._clock())

    async def close(self) -> None:
        """Close the connections to what servers share."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.redis is not None:
            await self.redis.close()

    async def _take_tokens(self, key_id: str, limit: float, tokens: int) -> BucketLevel:
        """Take tokens of the minute if any is left."""
        name = _token_bucket(key_id)
        if self.redis is not None:
            level = await self.redis.take(
                name, limit, limit / MINUTE_S, cost=float(tokens), required=1.0
            )
            if level is not None:
                return level
        share = limit / self._replicas
        return self._buckets.take(
            name, share, share / MINUTE_S, self._clock(), cost=tokens, required=1.0
        )

    def _take_later(self, key_id: str, limits: KeyLimits, tokens: int) -> None:
        """Take tokens of the minute whatever is left, or give them back, without waiting for Redis."""
        limit = limits.tokens_per_min
        if limit is None:
            return
        name = _token_bucket(key_id)
        if self.redis is not None and self.redis.is_up:
            taking = self.redis.take(name, limit, limit / MINUTE_S, cost=float(tokens))
            task = asyncio.get_running_loop().create_task(taking)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        share = limit / self._replicas
        self._buckets.charge(name, share, share / MINUTE_S, self._clock(), tokens)

    def _admit_month(self, key_id: str, limits: KeyLimits, tokens: int) -> None:
        quota = limits.monthly_tokens
        assert quota is not None  # noqa: S101 - for mypy
        share = quota if self.usage.is_shared else quota / self._replicas
        if not self.usage.admit(key_id, share, tokens):
            raise RateLimitError(
                f"You exceeded your current quota of {quota} tokens a month.",
                retry_after_s=MONTH_RETRY_S,
                key_id=key_id,
                of="quota",
            )

    def _give_back_month(self, admission: TokenAdmission) -> None:
        if admission.limits.monthly_tokens is not None:
            self.usage.add_to_month(admission.key_id, -admission.tokens)


def _too_many_tokens(key_id: str, limits: KeyLimits, level: BucketLevel) -> RateLimitError:
    return RateLimitError(
        f"Rate limit reached: {limits.tokens_per_min} tokens a minute.",
        retry_after_s=level.wait_s,
        key_id=key_id,
        of="tokens",
    )


def _token_bucket(key_id: str) -> str:
    """The name of the bucket of a key's tokens a minute."""
    return f"t{key_id}"
