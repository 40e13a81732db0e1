"""Batches whose model is not loaded wait here, so that they hold no place that others' batches could have."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nestvec.errors import ModelUnavailableError, NestvecError
from nestvec.jobs.types import LineHandler

# How long a model that cannot be loaded is tried again, before the lines that ask for it fail.
MODEL_WAIT_S: Final = 60.0
RETRY_S: Final = 5.0


@dataclass(slots=True)
class ModelWait:
    """A model that is being loaded for batches.

    Attributes:
        task: Loads it, again and again for a while.
        used_s: Monotonic time at which a chunk last asked for it.
        error: Why it could not be loaded in all that time; None while it is still tried.
    """

    task: "asyncio.Task[None]"
    used_s: float
    error: NestvecError | None = None


class ModelWaits:
    """Loads models for batches beside the work on others.

    Args:
        handler: Knows and loads models.
        on_change: Called when chunks for a model may be claimed again.
        wait_s: How long a model that cannot be loaded is tried again.
    """

    def __init__(
        self, handler: LineHandler, on_change: Callable[[], None], wait_s: float = MODEL_WAIT_S
    ) -> None:
        self._handler = handler
        self._on_change = on_change
        self._wait_s = wait_s
        self._waits: dict[str | None, ModelWait] = {}
        # Since when chunks could not be answered although their model was loaded for them.
        self._failed_s: dict[str | None, float] = {}

    @property
    def waiting(self) -> list[str]:
        """Models whose chunks are not to be claimed now; "" for batches that name none."""
        return [model or "" for model, wait in self._waits.items() if not wait.task.done()]

    def begin(self, model: str | None, *, has_failed: bool = False) -> NestvecError | None:
        """Look whether a chunk can be answered; else begin to load its model, and pass over its chunks meanwhile.

        Args:
            model: The model that its lines ask for.
            has_failed: Whether the model could just not be loaded.

        Returns:
            Why its lines are to be refused, after the model was tried for long enough.
        """
        now_s = time.monotonic()
        wait = self._waits.get(model)
        if wait is not None and wait.task.done() and now_s - wait.used_s > self._wait_s:
            # Nobody has asked for a while: who asks now finds it tried anew.
            wait = None
        if not has_failed and self._handler.is_loaded(model):
            self._waits.pop(model, None)
            return None
        if has_failed and now_s - self._failed_s.setdefault(model, now_s) >= self._wait_s:
            return _broken()
        if wait is None or (wait.task.done() and wait.error is None):
            wait = ModelWait(asyncio.create_task(self._load(model)), now_s)
            self._waits[model] = wait
        wait.used_s = now_s
        return wait.error

    def note_success(self, model: str | None) -> None:
        """Note that a chunk for a model was answered."""
        self._failed_s.pop(model, None)

    def is_waiting(self, model: str | None) -> bool:
        """Whether a model is being loaded for batches."""
        return model in self._waits and not self._waits[model].task.done()

    async def close(self) -> None:
        """Stop loading."""
        tasks = [wait.task for wait in self._waits.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, model: str | None) -> None:
        """Try to load a model for a while; one that takes long to load is waited for."""
        failed_s: float | None = None
        while True:
            try:
                await self._handler.load(model)
            except Exception as caught:  # noqa: BLE001 - whatever it is, the lines must not wait for ever
                error = caught if isinstance(caught, NestvecError) else _broken()
                now_s = time.monotonic()
                failed_s = now_s if failed_s is None else failed_s
                if now_s - failed_s >= self._wait_s:
                    self._waits[model].error = error
                    self._waits[model].used_s = now_s
                    break
            else:
                break
            await asyncio.sleep(min(RETRY_S, self._wait_s / 2))
        # The task is not done before this has returned.
        asyncio.get_running_loop().call_soon(self._on_change)


def _broken() -> NestvecError:
    return ModelUnavailableError("The model cannot be loaded.", retry_after_s=RETRY_S)
