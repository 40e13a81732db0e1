"""Keeps models in memory: loads them when calls name them, and unloads idle ones where memory is bounded.

All state changes happen on the event loop; only loading and closing themselves run in a thread. A model that calls hold
is never taken away from them: unloading waits for its last call, and calls that come meanwhile wait and load it again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from nestvec.engine.models.loader_thread import LoaderThread
from nestvec.engine.models.model_registry import ModelRegistry, ModelSlot, SlotState
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import OutputKind
from nestvec.errors import ModelMemoryError, ModelUnavailableError, NestvecError, UnsupportedError
from nestvec.system.public_names import public_name

IN_MEMORY = (SlotState.READY, SlotState.LOADING, SlotState.UNLOADING)
RETRY_FAILED_S = 30.0  # a broken model is not read anew for every request
ChangeListener = Callable[[ModelSlot], None]
# What the running request holds: its further calls must not wait for an unloading that waits for itself.
_held_slots: ContextVar[tuple[ModelSlot, ...]] = ContextVar("nestvec_held_slots", default=())


def ignore_change(slot: ModelSlot) -> None:
    """Ignore a change."""


@dataclass(slots=True)
class ModelPool:
    """The models served, and which of them are in memory.

    Attributes:
        models: All models served.
        max_bytes: Maximum size of those in memory together, graphs and weights; 0 for no bound.
        on_change: Told after a model was loaded, was unloaded, or failed.
        unload_remotely: Unloads a model in the engine process, if that is another process than this one.
        clock: Monotonic seconds.
    """

    models: ModelRegistry
    max_bytes: int = 0
    on_change: ChangeListener = ignore_change
    unload_remotely: Callable[[ModelSlot], Awaitable[None]] | None = None
    clock: Callable[[], float] = time.monotonic
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _loader: LoaderThread = field(default_factory=LoaderThread)

    @asynccontextmanager
    async def using(self, name: str, kind: OutputKind | None = None) -> AsyncIterator[ServedModel]:
        """Hold a model for as long as the block runs; it is loaded first where need be.

        Raises:
            UnknownModelError: No model has the name.
            ModelUnavailableError: The model cannot be loaded.
        """
        slot = self.models.find(name, kind)
        model = await self.acquire(slot)
        try:
            yield slot.preset(name).variant(model)
        finally:
            self.release(slot)

    async def acquire(self, slot: ModelSlot) -> ServedModel:
        """Hold a model until `release`; it is loaded first where need be.

        Raises:
            ModelUnavailableError: The model cannot be loaded.
        """
        is_held = slot in _held_slots.get()
        while slot.model is None or not (is_held or slot.state is SlotState.READY):
            if slot.state in (SlotState.UNLOADED, SlotState.FAILED):
                self._refuse_broken(slot)
                self._begin_loading(slot)
            await self._change_of(slot)
        slot.users += 1
        slot.last_used_s = self.clock()
        return slot.model

    async def hold_for_request(self, slot: ModelSlot) -> ServedModel:
        """Hold a model for the whole running request, whose own calls then need not wait while it is unloading.

        Raises:
            ModelUnavailableError: The model cannot be loaded.
        """
        model = await self.acquire(slot)
        _held_slots.set((*_held_slots.get(), slot))
        return model

    def release_request(self) -> None:
        """Release all models that the running request holds."""
        held = _held_slots.get()
        _held_slots.set(())
        for slot in held:
            self.release(slot)

    def release(self, slot: ModelSlot) -> None:
        """Note that a call on a model has ended."""
        slot.users -= 1
        slot.last_used_s = self.clock()
        if slot.users == 0 and slot.state is SlotState.UNLOADING:
            self._wake(slot)

    async def load(self, slot: ModelSlot) -> None:
        """Load a model; one that is loaded stays as it is.

        Raises:
            ModelUnavailableError: The model cannot be loaded.
        """
        await self.acquire(slot)
        self.release(slot)

    async def unload(self, slot: ModelSlot) -> None:
        """Unload a model once its calls have ended; one that is not loaded stays as it is.

        Raises:
            UnsupportedError: The model could not be loaded again.
        """
        while slot.state in (SlotState.LOADING, SlotState.UNLOADING):
            await self._change_of(slot)
        if slot.open is None and slot.model is not None:
            raise UnsupportedError(f"model '{slot.name}' could not be loaded again", param="model")
        if slot.state is SlotState.READY and slot.model is not None:
            await self._unload_here(slot, slot.model)
        if self.unload_remotely is not None and not slot.parts:
            await self.unload_remotely(slot)

    async def _unload_here(self, slot: ModelSlot, model: ServedModel) -> None:
        """Unload a ready model from this process."""
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

    def open_now(self, slot: ModelSlot) -> None:
        """Load a model in this thread: at the start, before any call can come.

        Raises:
            ModelError: The model cannot be served.
        """
        if slot.open is None:
            return
        started_s = self.clock()
        try:
            slot.set_model(slot.open())
            slot.load_s = self.clock() - started_s
        except NestvecError as error:
            self._fail(slot, error)
            raise

    def close(self) -> None:
        """Stop the workers of all models."""
        for model in self.models.loaded():
            model.core.close()

    def _refuse_broken(self, slot: ModelSlot) -> None:
        """Refuse a model that failed, for a while, rather than load it again."""
        if slot.state is SlotState.FAILED and self.clock() < slot.failed_s + RETRY_FAILED_S:
            raise self._unavailable(slot)

    @staticmethod
    def _unavailable(slot: ModelSlot) -> ModelUnavailableError:
        return ModelUnavailableError(
            f"The model `{public_name(slot.name)}` could not be loaded; the server's log says why.",
            retry_after_s=RETRY_FAILED_S,
        )

    def _begin_loading(self, slot: ModelSlot) -> None:
        """Load a model in a task of its own, so that no caller who leaves stops it."""
        slot.state = SlotState.LOADING
        task = asyncio.get_running_loop().create_task(self._load(slot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, slot: ModelSlot) -> None:
        assert slot.open is not None  # noqa: S101 - a slot without one is ready from the first
        started_s = self.clock()
        held: list[ModelSlot] = []
        try:
            for part in slot.parts:
                await self.acquire(part)
                held.append(part)
            await self._make_room(slot)
            slot.set_model(await self._opened(slot, slot.open))
            slot.load_s = self.clock() - started_s
            await self._make_room(slot)
        except NestvecError as error:
            self._fail(slot, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, waiting callers must hear
            self._fail(slot, ModelUnavailableError(f"{type(error).__name__} while loading"))
        finally:
            for part in held:
                self.release(part)
            self.on_change(slot)
            self._wake(slot)

    async def _opened(self, slot: ModelSlot, open_model: Callable[[], ServedModel]) -> ServedModel:
        """Open a model; where a GPU's memory does not hold it beside others, idle ones go first.

        Raises:
            NestvecError: The model cannot be opened.
        """
        while True:
            try:
                return await self._loader.run(open_model)
            except ModelMemoryError:
                idle = [
                    other for other in self.models.all() if other is not slot and _may_unload(other)
                ]
                if not idle:
                    raise
                await self.unload(min(idle, key=lambda other: other.last_used_s))

    def _fail(self, slot: ModelSlot, error: NestvecError) -> None:
        slot.state, slot.error, slot.failed_s = SlotState.FAILED, error, self.clock()

    async def _make_room(self, loading: ModelSlot) -> None:
        """Unload idle models, least recently used first, until a new one fits; it is loaded even where none can go."""
        while self.max_bytes:
            in_memory = [slot for slot in self.models.all() if slot.state in IN_MEMORY]
            if sum(slot.graph_bytes for slot in in_memory) <= self.max_bytes:
                return
            idle = [slot for slot in in_memory if slot is not loading and _may_unload(slot)]
            if not idle:
                return
            await self.unload(min(idle, key=lambda slot: slot.last_used_s))

    def _wake(self, slot: ModelSlot) -> None:
        waiters, slot.waiters = slot.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change_of(self, slot: ModelSlot) -> None:
        """Wait for a slot's next change.

        Raises:
            ModelUnavailableError: The change is that the model could not be loaded.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        slot.waiters.append(waiter)
        await waiter
        if slot.state is SlotState.FAILED:
            raise self._unavailable(slot)


def _may_unload(slot: ModelSlot) -> bool:
    return (
        slot.state is SlotState.READY
        and not slot.users
        and not slot.is_kept
        and slot.open is not None
    )
