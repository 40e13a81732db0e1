"""Rates and quotas: whatever many ask for at once, one request at most goes beyond, over processes and servers too."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nestvec.errors import ConfigError, RateLimitError
from nestvec.keys.buckets import Buckets
from nestvec.keys.rates import KeyRates
from nestvec.keys.records import KeyLimits
from nestvec.keys.redis_rates import TIMEOUT_S, RedisRates
from nestvec.keys.usage import UsageCounter

from tests.support.fakes import FakeClock
from tests.support.services import Service, redis_server

LIMITS = KeyLimits(tokens_per_min=1000)


def rates(redis: RedisRates | None = None, replicas: int = 1) -> KeyRates:
    """Rates of one server."""
    return KeyRates(UsageCounter(), Buckets(), redis, replicas=replicas, clock=FakeClock())


async def admitted(servers: list[KeyRates], limits: KeyLimits, tokens: int, count: int = 40) -> int:
    """Ask for tokens many times at once, each time at the next server; return how many requests were let in."""

    async def ask(server: KeyRates) -> bool:
        try:
            await server.admit("k", limits, tokens)
        except RateLimitError:
            return False
        return True

    return sum(
        await asyncio.gather(*(ask(servers[number % len(servers)]) for number in range(count)))
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A Redis of these tests."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def redis(service: Service) -> AsyncIterator[RedisRates]:
    """A client of the Redis."""
    client = RedisRates(service.url)
    yield client
    await client.close()


@pytest.mark.parametrize("limits", [LIMITS, KeyLimits(monthly_tokens=1000)])
async def test_one_request_at_most_goes_beyond(limits: KeyLimits) -> None:
    """40 requests at once, each of 300 tokens, at a limit of 1,000: three fit, and one more is let in."""
    server = rates()
    assert await admitted([server], limits, 300) == 4
    with pytest.raises(RateLimitError):
        server.check("k", limits)


@pytest.mark.parametrize("limits", [LIMITS, KeyLimits(monthly_tokens=1000)])
async def test_what_did_not_run_is_given_back(limits: KeyLimits) -> None:
    """Where the work fails its tokens are there again; where it has run they are counted as used."""
    server = rates()
    admission = await server.admit("k", limits, 5000)
    server.give_back(admission)
    server.check("k", limits)
    assert server.usage.tokens_this_month("k") == 0
    server.settle(await server.admit("k", limits, 5000))
    assert server.usage.tokens_this_month("k") == 5000
    with pytest.raises(RateLimitError):
        server.check("k", limits)


async def test_a_refusal_of_the_minute_takes_nothing_of_the_month() -> None:
    """Only what is let in counts towards the month."""
    server, limits = rates(), KeyLimits(tokens_per_min=10, monthly_tokens=1000)
    server.settle(await server.admit("k", limits, 10))
    for _ in range(5):
        with pytest.raises(RateLimitError) as caught:
            await server.admit("k", limits, 500)
        assert caught.value.of == "tokens"
    assert server.usage.tokens_this_month("k") == 10


async def test_without_redis_each_server_grants_its_part() -> None:
    """Four servers of a key with 1,000 tokens a minute grant 250 each, and a quarter of its requests."""
    servers = [rates(replicas=4) for _ in range(4)]
    assert [await admitted([server], LIMITS, 50) for server in servers] == [5] * 4
    level = servers[0].take_request("k", 20.0)
    assert (level.limit, level.left) == (5, 4)
    quota = KeyLimits(monthly_tokens=1000)
    assert [await admitted([server], quota, 50) for server in servers] == [5] * 4


@pytest.mark.process
async def test_servers_share_a_rate_in_redis(service: Service) -> None:
    """40 requests at once at three servers: they let in what one would, and what failed is given back to all."""
    clients = [RedisRates(service.url) for _ in range(3)]
    servers = [rates(client, replicas=3) for client in clients]
    for client in clients:  # connected before, however busy the machine is
        assert await client.take("first", 10, 1, cost=1.0) is not None
    assert await admitted(servers, LIMITS, 300) == 4
    limits = KeyLimits(tokens_per_min=500)
    admission = await servers[0].admit("other", limits, 2000)
    with pytest.raises(RateLimitError) as caught:
        await servers[1].admit("other", limits, 1)
    assert caught.value.retry_after_s == pytest.approx(180, abs=2)
    left = servers[1].tokens_left("other", limits)
    assert left is not None
    assert left.left == pytest.approx(-1500, abs=20)
    servers[0].give_back(admission)
    await asyncio.sleep(0.05)
    await servers[1].admit("other", limits, 1)
    levels = [await server.take_shared_request("k", 4.0) for server in (*servers, *servers)]
    assert [level is not None and level.wait_s == 0 for level in levels] == [True] * 4 + [False] * 2
    for server in servers:
        await server.close()


@pytest.mark.process
async def test_while_redis_is_away_each_server_grants_its_part(tmp_path: Path) -> None:
    """A Redis that hangs or is gone costs a fraction of a second once; it is asked again when it is back."""
    with redis_server(tmp_path) as service:
        client = RedisRates(service.url)
        told: list[bool] = []
        client.on_change = lambda *, is_up: told.append(is_up)
        server = rates(client, replicas=4)
        assert await admitted([server], KeyLimits(tokens_per_min=10), 1, count=3) == 3
        assert service._process is not None
        os.kill(service._process.pid, signal.SIGSTOP)
        async with asyncio.timeout(TIMEOUT_S * 3):
            assert await admitted([server], LIMITS, 50) == 5
        assert not client.is_up
        os.kill(service._process.pid, signal.SIGCONT)
        async with asyncio.timeout(5):
            while await client.take("x", 10, 1, cost=0.0) is None:
                await asyncio.sleep(0.05)
        assert told == [False, True]
        service.stop(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S * 3):
            assert await server.take_shared_request("k", 4.0) is None
        await server.close()


async def test_urls_that_are_refused() -> None:
    """Another scheme, or no URL at all, is told without the password that it may hold."""
    for url in ("http://:S3CRET@x", "redis://:S3CRET@host:port/0", "S3CRET"):
        with pytest.raises(ConfigError, match="rates_url") as caught:
            RedisRates(url)
        assert "S3CRET" not in caught.value.message


@pytest.mark.process
async def test_a_bucket_fills_by_redis_clock(redis: RedisRates) -> None:
    """A bucket fills with the time, never beyond its limit, and what it holds is told between answers."""
    assert (await redis.take("t", 10, 100, cost=30.0)) is not None
    first = redis.last_level("t", 10, 100)
    assert first.left < 0
    await asyncio.sleep(0.15)
    later = redis.last_level("t", 10, 100)
    assert first.left < later.left <= 10
    await asyncio.sleep(0.25)
    full = await redis.take("t", 10, 100, cost=0.0)
    assert full is not None
    assert full.left == 10
