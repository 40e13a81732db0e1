"""Each model's `Core` in an HTTP process, over connections to engine processes."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from nestvec.engine.backend import BackendInfo
from nestvec.engine.core.batching.retry_times import RetryTimes
from nestvec.engine.core.ports import CoreHealth
from nestvec.engine.observer import NullObserver, Observer
from nestvec.engine.results import RawVectors
from nestvec.engine.types import ItemOptions, Priority, Submission
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import DeadlineError, QueueFullError
from nestvec.ipc.engine_client import (
    MAX_ENGINE_WAIT_S,
    RECONNECT_S,
    EngineClient,
    EngineLostError,
)
from nestvec.ipc.frames import Frame, submit_frame, vectors_of
from nestvec.ipc.status_page import QueueLoad

# So long after the engine has refused a call others like it are refused here, untokenized; and at most this part of
# what waits in the engine, so that its queue stays nearly as long as it may be.
REFUSED_S: Final = 0.25
REFUSED_SHARE: Final = 0.05
# A call that is so many times smaller may pass what was refused; estimates of untokenized texts are lower by less.
SMALLER_TIMES: Final = 8
MAX_REFUSALS: Final = 1024  # classes and keys


class EngineConnection(Protocol):
    """Leads to one engine process, or to those of several devices."""

    def queue_load(self) -> QueueLoad:
        """Return how full the queue is that a call would go to."""

    def client_for(self, tokens: int) -> AbstractContextManager[EngineClient]:
        """Give the client of the engine process that a call of so many tokens goes to."""

    async def wait_until_up(self, within_s: float) -> None:
        """Wait until an engine process is there.

        Raises:
            NotReadyError: None comes in time.
        """

    async def load(self, model: str) -> tuple[BackendInfo, int]:
        """Have a model loaded.

        Returns:
            The backend's info and the budget of a micro-batch in token equivalents.

        Raises:
            NestvecError: The model cannot be loaded.
        """


class _Refusal(NamedTuple):
    """A call that the engine has refused, its tokens, and until when calls like it need not be tried."""

    until_s: float
    tokens: int
    error: QueueFullError


@dataclass(frozen=True, slots=True)
class RemoteCore:
    """A model's `Core` that runs in engine processes.

    Attributes:
        engines: Leads to one engine process, or to those of several devices.
        model: Name of the model's slot there.
        pooler: What is made of token states; the same as there.
        backend_info: What the backend there is and gives.
        max_batch_tokens: Budget of a micro-batch there, in token equivalents.
        observer: Told what is refused here.
        clock: Monotonic seconds.
    """

    engines: EngineConnection
    model: str
    pooler: Pooler
    backend_info: BackendInfo
    max_batch_tokens: int
    observer: Observer = field(default_factory=NullObserver)
    clock: Callable[[], float] = time.monotonic
    _refusals: dict[tuple[Priority, str], "_Refusal"] = field(default_factory=dict)
    _retries: RetryTimes = field(default_factory=RetryTimes)

    @contextmanager
    def expecting(self, tokens: int, options: ItemOptions) -> Iterator[None]:
        """Refuse what the core would refuse, by what it last noted, and by whom it has just refused.

        Raises:
            QueueFullError: There is no room, or the wait would be too long.
        """
        try:
            self._check_bound(tokens)
            self._check_refusals(tokens, options)
        except QueueFullError as error:
            self.observer.call_refused(self.model, error.reason)
            raise
        yield

    def _check_bound(self, tokens: int) -> None:
        """Refuse what would pass the queue's bound.

        Raises:
            QueueFullError: There is no room.
        """
        waiting, token_s, max_tokens = self.engines.queue_load()
        if waiting and waiting + tokens > max_tokens > 0:
            excess_tokens, waiting_s = waiting + tokens - max_tokens, waiting * token_s
            raise QueueFullError(
                f"The queue holds {waiting:.0f} tokens of at most {max_tokens:.0f}. Retry later.",
                retry_after_s=self._retries.next_s(
                    excess_s=excess_tokens * token_s,
                    own_s=tokens * token_s,
                    waiting_s=waiting_s,
                    now_s=self.clock(),
                ),
            )

    def _check_refusals(self, tokens: int, options: ItemOptions) -> None:
        """Refuse what is as what was refused a moment ago: the queue is hardly shorter by now.

        Raises:
            QueueFullError: The wait would be too long.
        """
        if not self._refusals:
            return
        group, now_s = (options.priority, options.key_id), self.clock()
        refusal = self._refusals.get(group)
        if refusal is None or tokens < refusal.tokens / SMALLER_TIMES:
            return
        if refusal.until_s <= now_s:
            del self._refusals[group]
            return
        error = refusal.error
        raise QueueFullError(
            error.message,
            retry_after_s=self._retries.next_s(
                excess_s=0.0, own_s=error.own_s, waiting_s=error.waiting_s, now_s=now_s
            ),
            reason=error.reason,
        )

    def _note_refusal(self, submission: Submission, error: QueueFullError) -> None:
        """Remember a call that would have waited too long, whatever its deadline."""
        if error.reason != "wait_too_long" or not error.waiting_s:
            return
        now_s = self.clock()
        if len(self._refusals) >= MAX_REFUSALS:
            self._refusals.clear()
        until_s = now_s + min(REFUSED_S, REFUSED_SHARE * error.waiting_s)
        group = submission.options.priority, submission.options.key_id
        self._refusals[group] = _Refusal(until_s, submission.tokens, error)

    async def submit(self, submission: Submission) -> RawVectors:
        """Run the items of a call there, and again in the next engine process where one dies meanwhile.

        Raises:
            CapacityError: The call cannot be served now.
            InternalError: The runtime failed on an item.
        """
        deadline_s = submission.options.deadline_s
        await self.engines.wait_until_up(self._wait_s(deadline_s))
        with self.engines.client_for(submission.tokens) as client:
            while True:
                await client.wait_until_up(self._wait_s(deadline_s))
                with suppress(EngineLostError):
                    return vectors_of(await self._call(client, submission))
                # The client's own task must have its turn to see the loss too.
                await asyncio.sleep(RECONNECT_S)

    async def _call(self, client: EngineClient, submission: Submission) -> Frame:
        """Send a call and wait for its answer; raises what `EngineClient.call` raises."""
        try:
            return await client.call(lambda call_id: submit_frame(call_id, self.model, submission))
        except QueueFullError as error:
            self._note_refusal(submission, error)
            raise

    def _wait_s(self, deadline_s: float | None) -> float:
        """Return how long to wait for an engine process.

        Raises:
            DeadlineError: The deadline has passed.
        """
        left_s = MAX_ENGINE_WAIT_S if deadline_s is None else deadline_s - self.clock()
        if left_s <= 0:
            raise DeadlineError("The deadline passed while the engine was restarting.")
        return min(left_s, MAX_ENGINE_WAIT_S)

    def health(self, now_s: float, batch_timeout_s: float) -> CoreHealth:
        """Return that all is well: the supervisor looks after the engine process."""
        del now_s, batch_timeout_s
        return CoreHealth()

    def close(self) -> None:
        """Do nothing: the engine process has a life of its own."""
