"""Models that come into memory and leave it: by need, by hand, and by a bound on memory."""

import asyncio
import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
from nestvec.engine.models.model_pool import RETRY_FAILED_S, ModelPool
from nestvec.engine.models.model_registry import ModelRegistry, ModelSlot, SlotState
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
    """Opens fake models by name, and notes which it opened."""

    def __init__(self, tokenizer: Path) -> None:
        self.tokenizer = tokenizer
        self.opened: list[str] = []
        self.failing: set[str] = set()
        self.capacity: int | None = None  # models that memory holds
        self.slots: list[ModelSlot] = []
        self.gate = threading.Event()
        self.gate.set()

    def slot(self, name: str, **fields: Any) -> ModelSlot:
        """Make a slot whose model can be loaded."""
        kinds = fields.pop("kinds", SPEC.kinds)
        size = fields.pop("graph_bytes", 100)

        def load() -> ServedModel:
            self.gate.wait(10)
            self.opened.append(name)
            if name in self.failing:
                raise FormatError("damaged")
            loaded = sum(slot.model is not None for slot in self.slots)
            if self.capacity is not None and loaded >= self.capacity:
                raise ModelMemoryError("no memory")
            spec = dataclasses.replace(SPEC, name=name, kinds=kinds)
            served = serve_fake(self.tokenizer, ServedOptions(spec=spec, aliases=()))
            return dataclasses.replace(served.service.models.resolve(""), graph_bytes=size)

        slot = ModelSlot(names=(name, f"{name}-alias"), open=load, **fields)
        self.slots.append(slot)
        return slot


@pytest.fixture
def maker(tiny_folder: Path) -> Maker:
    """A maker of models with this folder's tokenizer."""
    return Maker(tiny_folder / "tokenizer.json")


def pool_of(
    *slots: ModelSlot, max_bytes: int = 0
) -> tuple[ModelPool, FakeClock, list[tuple[str, str]]]:
    """Make a pool; return it, its clock, and the changes it tells of."""
    models, clock = ModelRegistry(), FakeClock()
    for slot in slots:
        models.add(slot)
    changes: list[tuple[str, str]] = []
    pool = ModelPool(
        models, max_bytes, on_change=lambda s: changes.append((s.name, s.state)), clock=clock
    )
    return pool, clock, changes


async def test_a_model_is_loaded_when_it_is_meant(maker: Maker) -> None:
    """A model is loaded once, however many calls wait for it, and then stays."""
    slot = maker.slot("one")
    pool, _, changes = pool_of(slot)
    taken = await asyncio.gather(*(pool.acquire(slot) for _ in range(5)))
    assert maker.opened == ["one"]
    assert len({id(model) for model in taken}) == 1
    assert (slot.users, slot.state) == (5, SlotState.READY)
    assert changes == [("one", SlotState.READY)]
    async with pool.using("one-alias") as model:
        assert model is taken[0]
        assert slot.users == 6
    assert slot.users == 5
    pool.close()


async def test_unloading_waits_for_calls_and_lets_new_ones_wait(maker: Maker) -> None:
    """No call gets a model that is being unloaded: unloading waits for calls, and new calls wait for it."""
    slot = maker.slot("one")
    pool, _, _ = pool_of(slot)
    first = await pool.acquire(slot)
    leaving = asyncio.create_task(pool.unload(slot))
    await asyncio.sleep(0)
    assert slot.state is SlotState.UNLOADING
    coming = asyncio.create_task(pool.acquire(slot))
    await asyncio.sleep(0.01)
    assert not leaving.done()
    assert not coming.done()
    pool.release(slot)
    await leaving
    second = await coming
    assert second is not first
    assert first.core.backend.is_closed  # type: ignore[attr-defined]
    assert maker.opened == ["one", "one"]
    pool.close()


async def test_a_request_that_holds_a_model_may_call_it_while_it_leaves(maker: Maker) -> None:
    """A request that holds a model may call it during unloading, else each would wait for the other."""
    slot = maker.slot("one")
    pool, _, _ = pool_of(slot)
    held = await pool.hold_for_request(slot)
    leaving = asyncio.create_task(pool.unload(slot))
    await asyncio.sleep(0)
    assert slot.state is SlotState.UNLOADING
    async with asyncio.timeout(1), pool.using("one") as again:
        assert again is held
    pool.release_request()
    await leaving
    assert (slot.state, slot.users) == (SlotState.UNLOADED, 0)
    pool.release_request()  # nothing is held any more
    assert slot.users == 0


async def test_a_broken_model_says_so_and_is_tried_again_later(maker: Maker) -> None:
    """A broken model is not tried again for every request, and other models serve."""
    broken, sound = maker.slot("broken"), maker.slot("sound")
    maker.failing = {"broken"}
    pool, clock, changes = pool_of(sound, broken)
    for _ in range(3):
        with pytest.raises(ModelUnavailableError, match="broken"):
            await pool.acquire(broken)
    assert maker.opened == ["broken"]
    assert broken.error is not None
    assert ("broken", SlotState.FAILED) in changes
    await pool.load(sound)
    maker.failing = set()
    clock.now_s += RETRY_FAILED_S
    await pool.load(broken)
    assert broken.state is SlotState.READY
    pool.close()


async def test_everybody_who_waits_hears_of_a_failure(maker: Maker) -> None:
    """Every call that waits for a load hears of its failure, not only the one that began it."""
    slot = maker.slot("one")
    maker.failing = {"one"}
    maker.gate.clear()
    pool, _, _ = pool_of(slot)
    waiting = [asyncio.create_task(pool.acquire(slot)) for _ in range(3)]
    await asyncio.sleep(0.01)
    maker.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ModelUnavailableError] * 3
    assert slot.users == 0


async def test_who_leaves_does_not_stop_a_load(maker: Maker) -> None:
    """A caller who leaves does not stop a load; the next one finds the model loaded."""
    slot = maker.slot("one")
    maker.gate.clear()
    pool, _, _ = pool_of(slot)
    gone = asyncio.create_task(pool.acquire(slot))
    await asyncio.sleep(0.01)
    gone.cancel()
    maker.gate.set()
    await pool.load(slot)
    assert maker.opened == ["one"]
    assert slot.users == 0
    pool.close()


async def test_idle_models_make_room(maker: Maker) -> None:
    """Idle models make room, the least recently used first; those that are kept or in use stay."""
    kept = maker.slot("kept", is_kept=True)
    old, new, big = maker.slot("old"), maker.slot("new"), maker.slot("big", graph_bytes=150)
    pool, clock, changes = pool_of(kept, old, new, big, max_bytes=400)
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
    assert ("new", SlotState.UNLOADED) in changes
    await pool.acquire(old)
    await pool.acquire(big)
    await pool.load(new)  # nothing may go: it is loaded all the same
    assert new.state is SlotState.READY
    pool.close()


async def test_idle_models_go_where_a_gpus_memory_does_not_hold_another(maker: Maker) -> None:
    """Idle models are unloaded until a GPU's memory holds another; with none left it fails, and says why."""
    slots = [maker.slot(name) for name in ("one", "two", "three")]
    pool, clock, changes = pool_of(*slots)
    for slot in slots[:2]:
        await pool.load(slot)
        clock.now_s += 1
    maker.capacity = 1
    await pool.load(slots[2])
    assert [slot.state for slot in slots] == [
        SlotState.UNLOADED,
        SlotState.UNLOADED,
        SlotState.READY,
    ]
    assert [name for name, state in changes if state == SlotState.UNLOADED] == ["one", "two"]
    maker.capacity = 0
    async with pool.using("three"):
        with pytest.raises(ModelUnavailableError):
            await pool.load(slots[0])
    assert isinstance(slots[0].error, ModelMemoryError)
    pool.close()


async def test_what_cannot_be_loaded_again_is_not_unloaded(tiny_folder: Path) -> None:
    """A model that was given loaded could not be loaded again, so it is not unloaded."""
    served = serve_fake(tiny_folder / "tokenizer.json")
    pool = served.service.pool
    with pytest.raises(UnsupportedError):
        await pool.unload(pool.models.all()[0])
    served.service.close()


async def test_no_name_means_the_first_that_gives_an_output(maker: Maker) -> None:
    """Without a name the first model that gives the output is meant, so an embedder and a re-ranker share a server."""
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
