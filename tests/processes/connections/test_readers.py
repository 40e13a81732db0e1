"""Readers that keep to the rate are told from those that stall, however coarsely their systems acknowledge."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from nestvec.processes.connections.readers import ReadingRate, taken_bytes_of
from typing_extensions import override

RATE = 1024
MIB = 1024 * 1024


def seconds_until_stalled(taken_at: Callable[[float], int], *, at_most: int = 3600) -> int | None:
    """Look every second, and return when the reader was found to have stalled; None: never."""
    clock = [0.0]
    rate = ReadingRate(
        lambda: taken_at(clock[0]), min_bytes_per_s=RATE, stall_s=10.0, now_s=clock[0]
    )
    for second in range(1, at_most):
        clock[0] = float(second)
        if rate.is_stalled(clock[0]):
            return second
    return None


@pytest.mark.parametrize("speed", [RATE, 2 * RATE, 48 * RATE, 100 * MIB])
@pytest.mark.parametrize("lump", [1460, 65_483, 200_000])
def test_a_reader_at_the_rate_is_never_cut(speed: int, lump: int) -> None:
    """At the rate or above it, acknowledged by the segment, by loopback's large one, by a part of a large buffer."""
    window = max(65_536, lump)

    def taken(now_s: float) -> int:
        return window + int(now_s * speed) // lump * lump

    assert seconds_until_stalled(taken) is None


@pytest.mark.parametrize(
    ("speed", "before", "latest"),
    [(0, 0, 12), (0, 65_536, 76), (0, 100 * MIB, 268), (100, 0, 13), (900, 65_536, 630)],
)
def test_a_reader_below_the_rate_is_cut(speed: int, before: int, latest: int) -> None:
    """One that stalls, or reads more slowly, is cut, at the latest when it has had the time for all it was sent."""
    cut = seconds_until_stalled(lambda now_s: before + int(now_s * speed))
    assert cut is not None
    assert 10 <= cut <= latest


def test_a_quick_reader_that_stalls_is_cut() -> None:
    """What a reader did before does not help it for longer than a buffer may hide."""
    cut = seconds_until_stalled(lambda now_s: int(min(now_s, 60) * 10 * MIB))
    assert cut is not None
    assert 60 < cut <= 60 + 268


def test_many_pauses_are_one_reading() -> None:
    """A slow reader of an answer that is written in pieces is cut; one that keeps to the rate while asked is not."""
    for speed, is_cut in ((600, True), (2 * RATE, False)):
        taken, now_s, stalled = 0, 0.0, False
        rate = ReadingRate(lambda: taken, min_bytes_per_s=RATE, stall_s=10.0, now_s=now_s)  # noqa: B023 - as it is then
        for _ in range(50):
            for _ in range(80):
                now_s += 1
                taken += speed
                stalled = stalled or rate.is_stalled(now_s)
            now_s += 1000  # nothing waits
            rate.resume(now_s)
        assert stalled is is_cut


def test_without_a_rate_nobody_is_cut() -> None:
    """A rate of nothing cuts nobody."""
    rate = ReadingRate(lambda: 0, min_bytes_per_s=0, stall_s=10.0, now_s=0.0)
    assert not rate.is_stalled(10**9)


async def test_what_a_system_has_taken() -> None:
    """What a reader's system has taken is counted, over sockets of either event loop; without one from our buffer."""

    class Sender(asyncio.Protocol):
        @override
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            senders.append(transport)
            transport.write(b"x" * 1000)

    senders: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sender, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.readexactly(1000)
    (sender,) = senders
    if hasattr(socket, "TCP_INFO"):
        async with asyncio.timeout(5):
            while taken_bytes_of(sender) not in (1000, 1001):  # the handshake counts as one
                await asyncio.sleep(0.01)
    writer.close()
    sender.abort()
    await asyncio.sleep(0.01)
    assert taken_bytes_of(sender) == 0
    server.close()
