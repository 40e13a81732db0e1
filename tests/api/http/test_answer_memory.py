"""Large answers: a few are made at a time, in the order of asking; nothing is held for those who have gone."""

import asyncio

import pytest
from nestvec.api.http import answer_memory
from nestvec.api.http.answer_memory import AnswerMemory
from nestvec.errors import QueueFullError


async def test_answers_wait_in_order_of_asking() -> None:
    """Who comes later does not pass, although his answer would fit."""
    memory, order = AnswerMemory(100), list[str]()

    async def make(name: str, count: int) -> None:
        await memory.take(count)
        order.append(name)

    await make("first", 80)
    large = asyncio.create_task(make("large", 50))
    await asyncio.sleep(0)
    small = asyncio.create_task(make("small", 10))
    await asyncio.sleep(0)
    assert order == ["first"]
    memory.give(80)
    await asyncio.gather(large, small)
    assert order == ["first", "large", "small"]
    assert memory.held_bytes == 60


async def test_one_that_is_larger_than_all_is_made_alone() -> None:
    """An answer beyond the bound is made when no other is."""
    memory = AnswerMemory(100)
    await memory.take(10)
    alone = asyncio.create_task(memory.take(1000))
    await asyncio.sleep(0)
    assert not alone.done()
    memory.give(10)
    await alone
    assert memory.held_bytes == 1000


@pytest.mark.parametrize("has_turn", [False, True])
async def test_who_leaves_holds_nothing(*, has_turn: bool) -> None:
    """A caller who leaves while waiting, or just as his turn comes, leaves the room to the next."""
    memory = AnswerMemory(100)
    await memory.take(100)
    leaving = asyncio.create_task(memory.take(100))
    next_one = asyncio.create_task(memory.take(30))
    await asyncio.sleep(0)
    if has_turn:
        memory.give(100)
        leaving.cancel()
    else:
        leaving.cancel()
        await asyncio.sleep(0)
        memory.give(100)
    await next_one
    assert leaving.cancelled()
    assert memory.held_bytes == 30


async def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no room comes in time the caller is told to come again, and the others go on."""
    monkeypatch.setattr(answer_memory, "MAX_WAIT_S", 0.05)
    memory = AnswerMemory(100)
    await memory.take(100)
    with pytest.raises(QueueFullError):
        await memory.take(60)
    memory.give(100)
    await memory.take(100)
    assert memory.held_bytes == 100


async def test_room_comes_just_as_somebody_leaves() -> None:
    """A caller who has left, and has not noticed yet, is passed over when there is room."""
    memory = AnswerMemory(100)
    await memory.take(100)
    leaving = asyncio.create_task(memory.take(60))
    staying = asyncio.create_task(memory.take(60))
    await asyncio.sleep(0)
    leaving.cancel()
    memory.give(100)
    ends = await asyncio.gather(leaving, staying, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert ends[1] is None
    assert memory.held_bytes == 60
