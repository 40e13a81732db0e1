"""Models that come into memory and leave it: by need, by hand, and by a bound on memory."""

import asyncio
import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
from nestvec.engine.models.model_pool import RETRY_FAILED_S, ModelPool
from nestvec.engine.models.model_registry import Models, Slot, SlotState
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import OutputKind
from nestvec.errors import (
    FormatError,
    ModelMemoryError,
    ModelUnavailableError,
    UnknownModelError,
    UnsupportedError,
)

from tests.support.fakes import FakeClock
from tests.support.served import SPEC, ServedOptions, serve_fake


class Maker:
    """Opens fake models by name, and counts."""

    def __init__(self, tokenizer: Path) -> None:
        self.tokenizer = tokenizer
        self.opened: list[str] = []
        self.failing: set[str] = set()
        self.room: int | None = None  # models that memory holds
        self.slots: list[Slot] = []
        self.gate = threading.Event()
        self.gate.set()

    def slot(self, name: str, **given: Any) -> Slot:
        """One that can be loaded."""
        kinds = given.pop("kinds", SPEC.kinds)
        size = given.pop("graph_bytes", 100)

        def load() -> ServedModel:
            self.gate.wait(10)
            self.opened.append(name)
            if name in self.failing:
                raise FormatError("damaged")
            loaded = sum(slot.model is not None for slot in self.slots)
            if self.room is not None and loaded >= self.room:
                raise ModelMemoryError("no memory")
            spec = dataclasses.replace(SPEC, name=name, kinds=kinds)
            served = serve_fake(self.tokenizer, ServedOptions(spec=spec, aliases=()))
            return dataclasses.replace(served.service.models.resolve(""), graph_bytes=size)

        made = Slot(names=(name, f"{name}-alias"), open=load, **given)
        self.slots.append(made)
        return made


@pytest.fixture
def maker(tiny_folder: Path) -> Maker:
    """Of this folder's tokenizer."""
    return Maker(tiny_folder / "tokenizer.json")


def pool_of(*slots: Slot, max_bytes: int = 0) -> tuple[ModelPool, FakeClock, list[tuple[str, str]]]:
    """A pool, its clock, and what it tells."""
    models, clock = Models(), FakeClock()
    for slot in slots:
        models.add(slot)
    told: list[tuple[str, str]] = []
    pool = ModelPool(
        models, max_bytes, on_change=lambda s: told.append((s.name, s.state)), clock=clock
    )
    return pool, clock, told


async def test_a_model_is_loaded_when_it_is_meant(maker: Maker) -> None:
    """Once, however many calls wait for it; a second time it is there."""
    slot = maker.slot("one")
    pool, _, told = pool_of(slot)
    taken = await asyncio.gather(*(pool.take(slot) for _ in range(5)))
    assert maker.opened == ["one"]
    assert len({id(model) for model in taken}) == 1
    assert (slot.users, slot.state) == (5, SlotState.READY)
    assert told == [("one", SlotState.READY)]
    async with pool.using("one-alias") as model:
        assert model is taken[0]
        assert slot.users == 6
    assert slot.users == 5
    pool.close()


async def test_unloading_waits_for_calls_and_lets_new_ones_wait(maker: Maker) -> None:
    """No call meets a model that is leaving."""
    slot = maker.slot("one")
    pool, _, _ = pool_of(slot)
    first = await pool.take(slot)
    leaving = asyncio.create_task(pool.unload(slot))
    await asyncio.sleep(0)
    assert slot.state is SlotState.UNLOADING
    coming = asyncio.create_task(pool.take(slot))
    await asyncio.sleep(0.01)
    assert not leaving.done()
    assert not coming.done()
    pool.give_back(slot)
    await leaving
    second = await coming
    assert second is not first
    assert first.core.backend.is_closed  # type: ignore[attr-defined]
    assert maker.opened == ["one", "one"]
    pool.close()


async def test_a_request_that_holds_a_model_may_call_it_while_it_leaves(maker: Maker) -> None:
    """Else it would wait for an unloading that waits for it."""
    slot = maker.slot("one")
    pool, _, _ = pool_of(slot)
    held = await pool.hold(slot)
    leaving = asyncio.create_task(pool.unload(slot))
    await asyncio.sleep(0)
    assert slot.state is SlotState.UNLOADING
    async with asyncio.timeout(1), pool.using("one") as again:
        assert again is held
    pool.let_go()
    await leaving
    assert (slot.state, slot.users) == (SlotState.UNLOADED, 0)
    pool.let_go()  # nothing is held any more
    assert slot.users == 0


async def test_a_broken_model_says_so_and_is_tried_again_later(maker: Maker) -> None:
    """Not for every request; the others serve."""
    broken, sound = maker.slot("broken"), maker.slot("sound")
    maker.failing = {"broken"}
    pool, clock, told = pool_of(sound, broken)
    for _ in range(3):
        with pytest.raises(ModelUnavailableError, match="broken"):
            await pool.take(broken)
    assert maker.opened == ["broken"]
    assert broken.error is not None
    assert ("broken", SlotState.FAILED) in told
    await pool.load(sound)
    maker.failing = set()
    clock.now_s += RETRY_FAILED_S
    await pool.load(broken)
    assert broken.state is SlotState.READY
    pool.close()


async def test_everybody_who_waits_hears_of_a_failure(maker: Maker) -> None:
    """Not only who began it."""
    slot = maker.slot("one")
    maker.failing = {"one"}
    maker.gate.clear()
    pool, _, _ = pool_of(slot)
    waiting = [asyncio.create_task(pool.take(slot)) for _ in range(3)]
    await asyncio.sleep(0.01)
    maker.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ModelUnavailableError] * 3
    assert slot.users == 0


async def test_who_leaves_does_not_stop_a_load(maker: Maker) -> None:
    """The next one finds it loaded."""
    slot = maker.slot("one")
    maker.gate.clear()
    pool, _, _ = pool_of(slot)
    gone = asyncio.create_task(pool.take(slot))
    await asyncio.sleep(0.01)
    gone.cancel()
    maker.gate.set()
    await pool.load(slot)
    assert maker.opened == ["one"]
    assert slot.users == 0
    pool.close()


async def test_idle_models_make_room(maker: Maker) -> None:
    """The least recently used goes first; those that are kept or in use stay."""
    kept = maker.slot("kept", is_kept=True)
    old, new, big = maker.slot("old"), maker.slot("new"), maker.slot("big", graph_bytes=150)
    pool, clock, told = pool_of(kept, old, new, big, max_bytes=400)
    for slot in (kept, old, new):
        clock.now_s += 1
        await pool.load(slot)
    clock.now_s += 1
    await pool.load(old)  # used again: `new` is the idlest now
    await pool.load(big)
    assert [slot.state for slot in (kept, old, new, big)] == [
        SlotState.READY,
        SlotState.READY,
        SlotState.UNLOADED,
        SlotState.READY,
    ]
    assert ("new", SlotState.UNLOADED) in told
    await pool.take(old)
    await pool.take(big)
    await pool.load(new)  # nothing may go: it is loaded all the same
    assert new.state is SlotState.READY
    pool.close()


async def test_idle_models_go_where_a_gpus_memory_does_not_hold_another(maker: Maker) -> None:
    """Least recently used first, as many as it takes; with none left the model fails, and says why."""
    slots = [maker.slot(name) for name in ("one", "two", "three")]
    pool, clock, told = pool_of(*slots)
    for slot in slots[:2]:
        await pool.load(slot)
        clock.now_s += 1
    maker.room = 1
    await pool.load(slots[2])
    assert [slot.state for slot in slots] == [
        SlotState.UNLOADED,
        SlotState.UNLOADED,
        SlotState.READY,
    ]
    assert [name for name, state in told if state == SlotState.UNLOADED] == ["one", "two"]
    maker.room = 0
    async with pool.using("three"):
        with pytest.raises(ModelUnavailableError):
            await pool.load(slots[0])
    assert isinstance(slots[0].error, ModelMemoryError)
    pool.close()


async def test_what_cannot_be_loaded_again_is_not_unloaded(tiny_folder: Path) -> None:
    """A model that was given loaded."""
    served = serve_fake(tiny_folder / "tokenizer.json")
    pool = served.service.pool
    with pytest.raises(UnsupportedError):
        await pool.unload(pool.models.all()[0])
    served.service.close()


async def test_no_name_means_the_first_that_gives_an_output(maker: Maker) -> None:
    """An embedder and a re-ranker share a server without naming either."""
    dense = maker.slot("dense")
    ranks = maker.slot("ranks", kinds=(OutputKind.LABELS,))
    pool, _, _ = pool_of(dense, ranks)
    models = pool.models
    assert models.find("", OutputKind.LABELS) is dense  # nothing is known of either yet
    for slot in (dense, ranks):
        await pool.load(slot)
    assert models.find("", OutputKind.LABELS) is ranks
    assert models.find("", OutputKind.DENSE) is dense
    assert models.find("") is dense
    assert models.find("", OutputKind.SPARSE) is dense
    with pytest.raises(UnknownModelError):
        models.find("neither")
    pool.close()
