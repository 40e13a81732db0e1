"""The memory for bodies is shared: no caller, and no number of large bodies, keeps small requests out."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nestvec.api.http.body import owner_of
from nestvec.api.http.body_memory import (
    FIRST_BYTES,
    FREE_INPUTS,
    INPUT_BYTES,
    KEPT_SHARE,
    BodyMemoryBudget,
    BodyReservation,
    HeldBytes,
)
from nestvec.errors import QueueFullError
from nestvec.keys.records import KeyFile, KeyLimits
from starlette.requests import Request

from tests.api.applications import MakeApi

MIB = 2**20


def fill(budget: BodyMemoryBudget, owner: str, step: int = MIB, most: int = 16 * MIB) -> int:
    """Hold bodies of up to `most` bytes for an owner until the first byte of a further one is refused."""
    held = 0
    while True:
        reservation, before = BodyReservation(budget, owner), held
        try:
            while held - before < most:
                reservation.add(step)
                held += step
        except QueueFullError:
            pass
        if held == before:
            return held


def test_one_caller_leaves_room_for_others() -> None:
    """A caller alone gets most of the room and never all of it; another one's large body still fits then."""
    budget = BodyMemoryBudget(512 * MIB)
    held = fill(budget, "a")
    assert 0.6 * budget.max_bytes < held < 0.8 * budget.max_bytes
    other = BodyReservation(budget, "b")
    for _ in range(16):
        other.add(MIB)


def test_large_bodies_leave_room_for_small_ones() -> None:
    """However many callers hold large bodies, small requests of each of them and of others are read."""
    budget = BodyMemoryBudget(64 * MIB)
    for number in range(50):
        fill(budget, f"address {number}")
    assert budget.held_bytes <= budget.max_bytes
    for owner in ("address 0", "address 49", "new"):
        BodyReservation(budget, owner).add(2000)


def test_a_body_that_is_alone_may_take_all() -> None:
    """Where the room is no larger than a body may be, one body at a time is read."""
    budget = BodyMemoryBudget(16 * MIB)
    first, second = BodyReservation(budget, "a"), BodyReservation(budget, "b")
    for _ in range(16):
        first.add(MIB)
    with pytest.raises(QueueFullError):
        second.add(MIB)
    first.release()
    for _ in range(16):
        second.add(MIB)


def test_answers_that_nobody_reads_keep_large_bodies_out() -> None:
    """Bytes of answers count with the bodies, are never refused, and cannot take what is kept for small requests."""
    budget = BodyMemoryBudget(64 * MIB)
    for _ in range(10):
        budget.hold(16 * MIB, "a")
    with pytest.raises(QueueFullError):
        BodyReservation(budget, "b").add(MIB)
    small = BodyReservation(budget, "b")
    small.add(FIRST_BYTES)
    for _ in range(10):
        budget.end_hold(16 * MIB, "a")
    small.release()
    assert budget == BodyMemoryBudget(64 * MIB)


# Small requests, then a body that takes what they leave, then what is behind the first bytes of the small ones.
@example([(number, 70_000) for number in range(6)] + [(0, 10_000)] * 60 + [(1, 70_000)] * 4)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([0, 10, 5000, 70_000, 400_000])), max_size=60
    )
)
def test_what_is_held_is_given_back(steps: list[tuple[int, int]]) -> None:
    """Whatever is reserved, refused and released, the bound holds, and at the end nothing is held or remembered."""
    budget = BodyMemoryBudget(MIB)
    reservations = [BodyReservation(budget, f"owner {number % 3}") for number in range(6)]
    for number, count in steps:
        reservation = reservations[number]
        try:
            reservation.add(count) if count else reservation.release()
        except QueueFullError:
            reservation.release()
        held = sum(r.held.first + r.held.rest for r in reservations)
        assert budget.held_bytes == held <= MIB * (1 + KEPT_SHARE)
    for reservation in reservations:
        reservation.release()
        assert reservation.held == HeldBytes()
    assert budget == BodyMemoryBudget(MIB)


async def test_inputs_count_beside_their_bytes(make_api: MakeApi) -> None:
    """Requests of many short inputs take memory that their bodies do not show, and are refused where it is gone."""
    api = make_api(max_in_flight_bytes=3 * MIB)
    memory = api.app.state.body_memory
    api.served.backend.gate.clear()
    few = {"input": ["alpha"] * FREE_INPUTS}
    many = {"input": [f"alpha {number}" for number in range(1000)]}
    first = asyncio.create_task(api.embed(many))
    async with asyncio.timeout(10):
        while memory.held_bytes < 984 * INPUT_BYTES:
            await asyncio.sleep(0.001)
    assert (await api.embed(many)).status_code == 429
    small = asyncio.create_task(api.embed(few))
    await asyncio.sleep(0.05)
    assert not small.done()
    api.served.backend.gate.set()
    assert (await first).status_code == (await small).status_code == 200
    assert memory == BodyMemoryBudget(3 * MIB)


def request_from(host: str | None) -> Request:
    """A request from an address."""
    client = None if host is None else (host, 1)
    return Request({"type": "http", "headers": [], "client": client})


@pytest.mark.parametrize(
    ("host", "owner"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no:address", "no:address"),
        (None, ""),
    ],
)
def test_whose_a_body_is(host: str | None, owner: str) -> None:
    """Without a key a body is its address's, of IPv6 its network's."""
    assert owner_of(request_from(host)) == owner


async def test_keys_have_shares_of_their_own(make_api: MakeApi, tmp_path: object) -> None:
    """A key that fills the room with bodies that never end is refused more; another key's large body is read."""
    path = tmp_path / "keys.json"  # type: ignore[operator] # pytest's path
    file = KeyFile.read(path)
    keys = [file.add(name, KeyLimits())[1] for name in ("greedy", "honest")]
    file.write()
    api = make_api(keys_file=path, max_in_flight_bytes=8 * MIB)
    memory = api.app.state.body_memory
    never = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b'{"input": "alpha", "user": "' + b"x" * MIB
        await never.wait()

    def post(key: str, content: object) -> "asyncio.Task[int]":
        async def send() -> int:
            headers = {"authorization": f"Bearer {key}"}
            answer = await api.client.post("/v1/embeddings", content=content, headers=headers)  # type: ignore[arg-type] # bytes or chunks
            return answer.status_code

        return asyncio.create_task(send())

    greedy = [post(keys[0], endless()) for _ in range(8)]
    async with asyncio.timeout(10):
        while memory.held_bytes < 4 * MIB or not any(task.done() for task in greedy):
            await asyncio.sleep(0.001)
    refused = [task.result() for task in greedy if task.done()]
    assert refused
    assert set(refused) == {429}
    large = json.dumps({"input": "alpha", "user": "x" * MIB}).encode()
    assert await post(keys[1], large) == 200
    assert await post(keys[0], large) == 429
    assert await post(keys[0], b'{"input": "alpha"}') == 200
    never.set()
    await asyncio.gather(*greedy)
    assert memory == BodyMemoryBudget(8 * MIB)


async def test_a_body_has_a_total_time(make_api: MakeApi) -> None:
    """A body that is not whole when a request's time is over gets 408, and its memory is free again."""
    api = make_api(request_timeout_s=0.2)

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"input": "alpha", "user": "'
        while True:
            await asyncio.sleep(0.01)
            yield b"x" * 1000

    for path in ("/v1/embeddings", "/embed"):
        async with asyncio.timeout(5):
            answer = await api.client.post(path, content=slowly())
        assert answer.status_code == 408, (path, answer.text)
        assert answer.headers["connection"] == "close"
        assert "0.2 s after its headers" in answer.text
    assert api.app.state.body_memory.held_bytes == 0


async def test_a_deadline_is_counted_from_the_headers(make_api: MakeApi) -> None:
    """What a body took to come in is no longer there for its answer: the time is the request's, not the engine's."""
    api = make_api(request_timeout_s=0.4)
    api.served.backend.gate.clear()

    async def late() -> AsyncIterator[bytes]:
        yield b'{"input": "alpha"'
        await asyncio.sleep(0.3)
        yield b"}"

    began = asyncio.get_running_loop().time()
    answer = await api.client.post("/v1/embeddings", content=late())
    took_s = asyncio.get_running_loop().time() - began
    api.served.backend.gate.set()
    assert answer.status_code == 504
    assert took_s < 0.65
