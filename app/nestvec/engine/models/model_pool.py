"""Keeps models in memory: loads them when they are meant, and lets idle ones go where memory is bounded.

All state changes happen on the event loop; only loading and closing themselves run in threads. A model that calls hold
is never taken away under them: unloading waits for its last call, and calls that come meanwhile wait and load it again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from nestvec.engine.models.loader_thread import Loader
from nestvec.engine.models.model_registry import Models, Slot, SlotState
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import OutputKind
from nestvec.errors import ModelMemoryError, ModelUnavailableError, NestvecError, UnsupportedError

IN_MEMORY = (SlotState.READY, SlotState.LOADING, SlotState.UNLOADING)
RETRY_FAILED_S = 30.0  # a broken model is not read anew for every request
Told = Callable[[Slot], None]
# What the running request holds: its further calls must not wait for an unloading that waits for itself.
_HOLDING: ContextVar[tuple[Slot, ...]] = ContextVar("nestvec_holding", default=())


def tell_nobody(slot: Slot) -> None:
    """Ignore."""


@dataclass(slots=True)
class ModelPool:
    """The models served, and which of them are in memory.

    Attributes:
        models: All of them.
        max_bytes: What those in memory may take together, graphs and weights; 0 for no bound.
        on_change: Told after a model was loaded, unloaded, or failed.
        unload_there: Lets a model go in the process where it really is, if that is another.
        clock: Monotonic seconds.
    """

    models: Models
    max_bytes: int = 0
    on_change: Told = tell_nobody
    unload_there: Callable[[Slot], Awaitable[None]] | None = None
    clock: Callable[[], float] = time.monotonic
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _loader: Loader = field(default_factory=Loader)

    @asynccontextmanager
    async def using(self, name: str, kind: OutputKind | None = None) -> AsyncIterator[ServedModel]:
        """Hold a model for as long as the block runs, loaded first where need be.

        Raises:
            UnknownModelError: No model has the name.
            ModelUnavailableError: It cannot be loaded.
        """
        slot = self.models.find(name, kind)
        model = await self.take(slot)
        try:
            yield model
        finally:
            self.give_back(slot)

    async def take(self, slot: Slot) -> ServedModel:
        """Hold a model until `give_back`.

        Raises:
            ModelUnavailableError: It cannot be loaded.
        """
        is_held = slot in _HOLDING.get()
        while slot.model is None or not (is_held or slot.state is SlotState.READY):
            if slot.state in (SlotState.UNLOADED, SlotState.FAILED):
                self._refuse_broken(slot)
                self._begin_loading(slot)
            await self._change_of(slot)
        slot.users += 1
        slot.used_s = self.clock()
        return slot.model

    async def hold(self, slot: Slot) -> ServedModel:
        """Take a model for a whole request, whose own calls then need not wait while it is unloading.

        Raises:
            ModelUnavailableError: It cannot be loaded.
        """
        model = await self.take(slot)
        _HOLDING.set((*_HOLDING.get(), slot))
        return model

    def let_go(self) -> None:
        """Give back all that the running request holds."""
        held = _HOLDING.get()
        _HOLDING.set(())
        for slot in held:
            self.give_back(slot)

    def give_back(self, slot: Slot) -> None:
        """A call has ended."""
        slot.users -= 1
        slot.used_s = self.clock()
        if slot.users == 0 and slot.state is SlotState.UNLOADING:
            self._wake(slot)

    async def load(self, slot: Slot) -> None:
        """Bring a model into memory; nothing where it is.

        Raises:
            ModelUnavailableError: It cannot be loaded.
        """
        await self.take(slot)
        self.give_back(slot)

    async def unload(self, slot: Slot) -> None:
        """Take a model out of memory once its calls have ended; nothing where it is not in.

        Raises:
            UnsupportedError: It could not be loaded again.
        """
        while slot.state in (SlotState.LOADING, SlotState.UNLOADING):
            await self._change_of(slot)
        if slot.open is None and slot.model is not None:
            raise UnsupportedError(f"model '{slot.name}' could not be loaded again", param="model")
        if slot.state is SlotState.READY and slot.model is not None:
            await self._unload_here(slot, slot.model)
        if self.unload_there is not None:
            await self.unload_there(slot)

    async def _unload_here(self, slot: Slot, model: ServedModel) -> None:
        """Take a ready one out of this process."""
        slot.state = SlotState.UNLOADING
        while slot.users:
            await self._change_of(slot)
        slot.model = None
        try:
            await self._loader.run(model.core.close)
        finally:
            del model
            slot.state = SlotState.UNLOADED
            self.on_change(slot)
            self._wake(slot)

    def open_now(self, slot: Slot) -> None:
        """Load a model right here: for a start, before any call can come.

        Raises:
            ModelError: It cannot be served.
        """
        if slot.open is None:
            return
        try:
            slot.hold(slot.open())
        except NestvecError as error:
            self._fail(slot, error)
            raise

    def close(self) -> None:
        """Stop the workers of all models."""
        for model in self.models.loaded():
            model.core.close()

    def _refuse_broken(self, slot: Slot) -> None:
        """Say again why a model failed, for a while."""
        if slot.state is SlotState.FAILED and self.clock() < slot.failed_s + RETRY_FAILED_S:
            raise self._unavailable(slot)

    @staticmethod
    def _unavailable(slot: Slot) -> ModelUnavailableError:
        return ModelUnavailableError(
            f"The model `{slot.name}` could not be loaded; the server's log says why.",
            retry_after_s=RETRY_FAILED_S,
        )

    def _begin_loading(self, slot: Slot) -> None:
        """Load in a task of its own, so that no caller's leaving stops it."""
        slot.state = SlotState.LOADING
        task = asyncio.get_running_loop().create_task(self._load(slot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, slot: Slot) -> None:
        assert slot.open is not None  # noqa: S101 - a slot without one is ready from the first
        try:
            await self._make_room(slot)
            slot.hold(await self._opened(slot, slot.open))
            await self._make_room(slot)
        except NestvecError as error:
            self._fail(slot, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, waiting callers must hear
            self._fail(slot, ModelUnavailableError(f"{type(error).__name__} while loading"))
        finally:
            self.on_change(slot)
            self._wake(slot)

    async def _opened(self, slot: Slot, open_model: Callable[[], ServedModel]) -> ServedModel:
        """Open a model; where a GPU's memory does not hold it beside others, idle ones go first.

        Raises:
            NestvecError: It cannot be.
        """
        while True:
            try:
                return await self._loader.run(open_model)
            except ModelMemoryError:
                idle = [one for one in self.models.all() if one is not slot and _may_go(one)]
                if not idle:
                    raise
                await self.unload(min(idle, key=lambda one: one.used_s))

    def _fail(self, slot: Slot, error: NestvecError) -> None:
        slot.state, slot.error, slot.failed_s = SlotState.FAILED, error, self.clock()

    async def _make_room(self, wanted: Slot) -> None:
        """Unload idle models, least recently used first, until one fits; it is loaded even where none can go."""
        while self.max_bytes:
            live = [slot for slot in self.models.all() if slot.state in IN_MEMORY]
            if sum(slot.graph_bytes for slot in live) <= self.max_bytes:
                return
            idle = [slot for slot in live if slot is not wanted and _may_go(slot)]
            if not idle:
                return
            await self.unload(min(idle, key=lambda slot: slot.used_s))

    def _wake(self, slot: Slot) -> None:
        waiting, slot.waiters = slot.waiters, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _change_of(self, slot: Slot) -> None:
        """Wait for a slot's next change; raises what a load that ended badly says."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        slot.waiters.append(waiter)
        await waiter
        if slot.state is SlotState.FAILED:
            raise self._unavailable(slot)


def _may_go(slot: Slot) -> bool:
    return (
        slot.state is SlotState.READY
        and not slot.users
        and not slot.is_kept
        and slot.open is not None
    )
