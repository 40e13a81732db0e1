"""FrontThreads: the threads that tokenize and finish, what waits for them, and what is refused.

Work is bounded in characters, as the queue behind it is in tokens. A thread that is free takes what is most urgent:
what came first, but long work counts as if it had come later, by several times what it takes. Long work looks at the
checks of its ticket whether short work is waiting, and does some of that first, on its own stack: so a request of short
texts waits for about a slice, whatever others have sent, and long work goes on at half its speed at least.
"""

import asyncio
import contextlib
import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from nestvec.engine.core.batching.retry_times import jittered
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.errors import NotReadyError, QueueFullError

Result = TypeVar("Result")

# Up to so many characters are looked at on the event loop: at most 0.3 ms, and less than a thread's wake-up costs.
INLINE_CHARS: Final = 1024
# Up to so many values are finished there: about 0.2 ms; more go to a thread.
INLINE_VALUES: Final = 32 * 1024
# Finishing so many values takes about as long as tokenizing a character.
VALUES_PER_CHAR: Final = 64
# Work of up to so many characters is short: it takes less than a tenth of a second.
SHORT_CHARS: Final = 65_536
# Work counts for as many characters at least, for what it is to queue and wake a thread.
MIN_CHARS: Final = 1024
# What a character adds to the time at which work counts as arrived: some ten times what it takes.
URGENCY_S_PER_CHAR: Final = 1e-5
# Long work goes on for so long before it gives way again, and gives way to at most so many characters at once.
MIN_TURN_S: Final = 0.05
MAX_LENT_CHARS: Final = SHORT_CHARS
# What a character takes before any work was measured, and how much each measurement changes of that.
FIRST_S_PER_CHAR: Final = 1e-6
LEARNING_RATE: Final = 0.1
CLOSED: Final = "the server is shutting down"


@dataclass(slots=True)
class FrontWork:
    """A piece of work.

    Attributes:
        run: Does it.
        ticket: Says whether anybody still waits for it.
        chars: What it counts for, in characters.
        urgency_s: When it counts as arrived; the least is taken first.
        future: Resolves on `loop`.
        is_waiting: Whether no thread has taken it, and it counts as waiting.
        resumed_s: When it was begun, or last gave way.
        lent_s: How long its thread has done other work meanwhile.
    """

    run: Callable[[], Any] | None
    ticket: WorkTicket
    chars: int
    urgency_s: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    is_waiting: bool = True
    resumed_s: float = 0.0
    lent_s: float = 0.0

    @property
    def is_short(self) -> bool:
        """Whether longer work gives way to it."""
        return self.chars <= SHORT_CHARS


@dataclass(slots=True)
class FrontThreads:
    """A few threads for the work of calls before and behind the core.

    Attributes:
        threads: How many there are.
        max_waiting_chars: How much work may wait, in characters; an empty queue takes any work.
        clock: Monotonic seconds.
        busy: How many threads work now.
        waiting_chars: How much work waits now, in characters.
        waiting: How many pieces of work that is.
        refused: How many pieces of work were refused since the start.
    """

    threads: int
    max_waiting_chars: int
    clock: Callable[[], float] = time.monotonic
    busy: int = 0
    waiting_chars: int = 0
    waiting: int = 0
    refused: int = 0
    _s_per_char: float = FIRST_S_PER_CHAR
    _short: deque[FrontWork] = field(default_factory=deque)
    _long: list[tuple[float, int, FrontWork]] = field(default_factory=list)
    _running: set[WorkTicket] = field(default_factory=set)
    _arrivals: int = 0
    _workers: list[threading.Thread] = field(default_factory=list)
    _is_closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Condition = field(init=False)

    def __post_init__(self) -> None:
        """Make what threads wait for; they start with the first work."""
        self._wake = threading.Condition(self._lock)

    async def run(self, work: Callable[[], Result], ticket: WorkTicket, *, chars: int) -> Result:
        """Do work in a thread; when the caller is cancelled, it is not begun, or ends at its next check.

        Args:
            work: What is done. Where it is long, it checks the ticket between slices.
            ticket: The ticket that the work checks.
            chars: About how much it is, in characters that are tokenized.

        Raises:
            QueueFullError: Too much waits already.
            NotReadyError: The threads are closed.
        """
        loop = asyncio.get_running_loop()
        chars = max(chars, MIN_CHARS)
        urgency_s = self.clock() + chars * URGENCY_S_PER_CHAR
        entry = FrontWork(work, ticket, chars, urgency_s, loop, loop.create_future())
        self._add(entry)
        try:
            result: Result = await entry.future
        except asyncio.CancelledError:
            self._give_up(entry)
            raise
        return result

    def retry_after_s(self) -> float:
        """Return about when half of what waits will be done, in seconds, jittered."""
        return jittered(self.waiting_chars * self._s_per_char / self.threads / 2)

    def close(self) -> None:
        """End: what waits is not begun, what runs ends at its next check; returns once the threads have ended."""
        with self._lock:
            self._is_closed = True
            waiting = [*self._short, *(entry for _, _, entry in self._long)]
            self._short.clear()
            self._long.clear()
            for entry in waiting:
                entry.ticket.give_up()
                self._leave_queue(entry)
            for ticket in self._running:
                ticket.give_up()
            self._wake.notify_all()
        for entry in waiting:
            _resolve(entry, partial(_set_exception, entry.future, NotReadyError(CLOSED)))
        for worker in self._workers:
            worker.join()

    def _add(self, entry: FrontWork) -> None:
        """Queue work, and wake or start a thread.

        Raises:
            QueueFullError: Too much waits already.
            NotReadyError: The threads are closed.
        """
        with self._lock:
            if self._is_closed:
                raise NotReadyError(CLOSED)
            if self.waiting and self.waiting_chars + entry.chars > self.max_waiting_chars:
                self.refused += 1
                raise QueueFullError(
                    f"{self.waiting_chars} characters of at most {self.max_waiting_chars} wait to be tokenized. "
                    "Retry later or send fewer inputs.",
                    retry_after_s=self.retry_after_s(),
                )
            if entry.is_short:
                self._short.append(entry)
            else:
                self._arrivals += 1
                heapq.heappush(self._long, (entry.urgency_s, self._arrivals, entry))
            self.waiting += 1
            self.waiting_chars += entry.chars
            if len(self._workers) < self.threads:
                name = f"nestvec-front-{len(self._workers)}"
                worker = threading.Thread(target=self._work, name=name, daemon=True)
                self._workers.append(worker)
                worker.start()
            self._wake.notify()

    def _give_up(self, entry: FrontWork) -> None:
        """Note that nobody waits for work any more."""
        entry.ticket.give_up()
        with self._lock:
            self._leave_queue(entry)

    def _leave_queue(self, entry: FrontWork) -> None:
        """Count work as waiting no more; where nobody waits for it, it is dropped when its turn comes."""
        if entry.is_waiting:
            entry.is_waiting = False
            self.waiting -= 1
            self.waiting_chars -= entry.chars
        if entry.ticket.is_given_up:
            entry.run = None  # holds the caller's texts

    def _work(self) -> None:
        """Take work and do it, until the threads are closed."""
        while True:
            with self._lock:
                while not (self._short or self._long or self._is_closed):
                    self._wake.wait()
                if self._is_closed:
                    return
                entry = self._take(is_long=self._has_urgent_long())
                self.busy += 1
            try:
                self._do(entry)
            finally:
                with self._lock:
                    self.busy -= 1
            del entry  # a waiting thread holds no caller's texts

    def _has_urgent_long(self) -> bool:
        """Whether long work is more urgent than short work; one of both waits."""
        if not (self._short and self._long):
            return not self._short
        return self._long[0][0] < self._short[0].urgency_s

    def _take(self, *, is_long: bool) -> FrontWork:
        """Take the most urgent long or short work out of its queue; the lock is held."""
        entry = heapq.heappop(self._long)[2] if is_long else self._short.popleft()
        self._leave_queue(entry)
        self._running.add(entry.ticket)
        return entry

    def _do(self, entry: FrontWork) -> None:
        """Do work in this thread, and resolve its future."""
        ticket, work = entry.ticket, entry.run
        started_s = entry.resumed_s = self.clock()
        try:
            if work is None:
                return
            if not entry.is_short:
                ticket.give_way = partial(self._do_shorter, entry)
            ticket.check()
            outcome: Any = work()
            resolve = partial(_set_result, entry.future, outcome)
        except CancelledError:
            # Who gave it up waits no more, but for a server that is shutting down.
            resolve = partial(_set_exception, entry.future, NotReadyError(CLOSED))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it
            resolve = partial(_set_exception, entry.future, error)
        finally:
            ticket.give_way = None
            entry.run = None
            with self._lock:
                self._running.discard(ticket)
        self._learn(entry.chars, self.clock() - started_s - entry.lent_s)
        _resolve(entry, resolve)

    def _do_shorter(self, entry: FrontWork) -> None:
        """Do short work before the rest of what runs in this thread, if its turn is over."""
        if not self._short:
            return
        began_s = self.clock()
        if began_s < entry.resumed_s + MIN_TURN_S:
            return
        chars = 0
        while chars < MAX_LENT_CHARS:
            with self._lock:
                if not self._short:
                    break
                shorter = self._take(is_long=False)
            chars += shorter.chars
            self._do(shorter)
        entry.resumed_s = self.clock()
        entry.lent_s += entry.resumed_s - began_s

    def _learn(self, chars: int, took_s: float) -> None:
        """Learn what a character takes."""
        self._s_per_char += LEARNING_RATE * (took_s / chars - self._s_per_char)


def _resolve(entry: FrontWork, resolve: Callable[[], None]) -> None:
    """Resolve the future of work on its loop."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        entry.loop.call_soon_threadsafe(resolve)


def _set_result(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
