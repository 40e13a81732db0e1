"""Starts the processes, looks after them, starts again what has died, and ends them in order.

The engine's process is ended where it hangs: no heartbeat for some seconds (a stopped process, a deadlock), or a batch
far over its time. HTTP processes go on meanwhile and keep their calls.
"""

import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Final

from nestvec.config.settings import Settings
from nestvec.errors import StoreError
from nestvec.ipc.status_page import Flight
from nestvec.jobs.store import lock_folder
from nestvec.observability.logs import get_logger
from nestvec.observability.metrics import forget_gauges
from nestvec.processes.engine_process import MODEL_FAILED, run_core
from nestvec.processes.http_process import run_front
from nestvec.processes.runtime_dir import Places
from nestvec.processes.web_server import BACKLOG, bind_all, url_of

log = get_logger(__name__)

LOOK_S: Final = 0.1
BACKOFF_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0, 15.0)
CALM_S: Final = 5.0  # a process that lived so long, or served, is started again at once
SILENT_S: Final = 5.0  # ten times a second it should be heard
LOADING_SILENT_S: Final = 120.0  # writing a large graph may hold all threads up
END_S: Final = 10.0


def run_supervised(settings: Settings) -> None:
    """Serve with processes of their own until stopped; exits with 1 where no model can be served."""
    listeners = bind_all(settings)
    for listener in listeners:
        listener.listen(BACKLOG)
    url = url_of(listeners[0], settings.host)
    lock = None
    if settings.files_api:
        try:
            lock = lock_folder(settings.data_dir)
        except StoreError as error:
            log.warning("jobs_off", reason=error.message)
            settings = settings.model_copy(update={"files_api": False})
    places = Places.make()
    try:
        supervisor = Supervisor(settings, places, listeners, url)
        log.info("listening", url=url, model=settings.model, http_processes=settings.http_processes)
        status = supervisor.run()
    finally:
        places.remove()
        if lock is not None:
            lock.close()
    sys.exit(status)


@dataclass(slots=True)
class Child:
    """A process that is kept alive.

    Attributes:
        role: Of it.
        make: Makes it anew, given how many there were before.
        starts: How many there were.
        started_s: When the last one began.
        next_s: When the next may begin.
        failures: In a row.
    """

    role: str
    make: Callable[[int], BaseProcess]
    process: BaseProcess | None = None
    starts: int = 0
    started_s: float = 0.0
    next_s: float = 0.0
    failures: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.is_alive()

    def start(self, now_s: float) -> None:
        """Begin a new one."""
        self.process = self.make(self.starts)
        self.process.start()
        self.starts += 1
        self.started_s = now_s

    def note_end(self, now_s: float, *, has_served: bool = False) -> int | None:
        """It has ended; gives its exit status, and decides when the next may begin.

        Args:
            now_s: Monotonic time.
            has_served: It was ready: what ended it was not its start.
        """
        process, self.process = self.process, None
        status = None if process is None else process.exitcode
        if process is not None:
            process.close()
        is_calm = has_served or now_s - self.started_s >= CALM_S
        self.failures = 0 if is_calm else self.failures + 1
        self.next_s = now_s + BACKOFF_S[min(self.failures, len(BACKOFF_S) - 1)]
        return status

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None and self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)


@dataclass(slots=True)
class Pulse:
    """Tells whether the core hangs, from what it notes of itself.

    Attributes:
        flight: Where it does.
    """

    flight: Flight
    _last_look_s: float = 0.0
    _held_up_until_s: float = 0.0

    def trouble(self, now_s: float, started_s: float) -> str | None:
        """What is wrong, in a word; None where it is well.

        Args:
            now_s: Monotonic time.
            started_s: When the process began.
        """
        # Where we were held up ourselves (a paused container), the core was too: it gets its time again.
        if now_s - self._last_look_s > 1.0:
            self._held_up_until_s = now_s
        self._last_look_s = now_s
        beat_s, is_ready, overdue_s = self.flight.pulse()
        heard_s = max(beat_s, started_s, self._held_up_until_s)
        if now_s - heard_s > (SILENT_S if is_ready else LOADING_SILENT_S):
            return "silent"
        return "overdue" if overdue_s > 0 else None


@dataclass(slots=True)
class Core:
    """An engine's process, and what it tells of itself.

    Attributes:
        was_ready: Whether it has served.
    """

    child: Child
    pulse: Pulse
    was_ready: bool = False


@dataclass(slots=True)
class Supervisor:
    """Keeps cores and their fronts.

    Attributes:
        settings: All of them.
        places: Shared by all processes.
        listeners: Of HTTP; every front takes connections from them.
        url: Where that is reached.
    """

    settings: Settings
    places: Places
    listeners: list[socket.socket]
    url: str
    _cores: list[Core] = field(init=False)
    _fronts: list[Child] = field(init=False)
    _asked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Plan the processes; none starts before `run`."""
        spawn = multiprocessing.get_context("spawn")
        settings, places = self.settings, self.places

        def core(number: int) -> Callable[[int], BaseProcess]:
            own = settings.of_core(number)
            return lambda starts: spawn.Process(
                target=run_core,
                args=(own, places, number, starts),
                name=f"nestvec-{places.of_core(number).role}",
            )

        def front(number: int) -> Callable[[int], BaseProcess]:
            arguments = (settings, places, number, self.url, self.listeners)
            return lambda starts: spawn.Process(
                target=run_front, args=(*arguments, starts), name=f"nestvec-front-{number}"
            )

        self._cores = [
            Core(
                Child(places.of_core(n).role, core(n)),
                Pulse(Flight(places.of_core(n).flight, places.secret)),
            )
            for n in range(settings.cores)
        ]
        self._fronts = [Child(f"front-{n}", front(n)) for n in range(self.settings.http_processes)]

    def run(self) -> int:
        """Until stopped; gives the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._hear)
        try:
            while not self._asked:
                now_s = time.monotonic()
                if not all(self._look_at_core(core, now_s) for core in self._due_cores()):
                    return 1
                for child in self._fronts:
                    self._look_at(child, now_s)
                running = [c.process.sentinel for c in self._all() if c.process is not None]
                multiprocessing.connection.wait(running, LOOK_S)
        finally:
            self._end()
        return 0

    def _all(self) -> list[Child]:
        return [*self._fronts, *(core.child for core in self._cores)]

    def _due_cores(self) -> list[Core]:
        """The first; the others once that has the model, which it may have to fetch and export for all."""
        return self._cores if self._cores[0].was_ready else self._cores[:1]

    def _hear(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            for child in self._fronts:
                child.signal(signal.SIGHUP)
            return
        self._asked.append(number)
        if len(self._asked) > 1:  # a second time: at once
            for child in self._all():
                child.signal(signal.SIGKILL)

    def _look_at_core(self, core: Core, now_s: float) -> bool:
        """Keep a core alive; False where none can serve its model at all."""
        child, pulse = core.child, core.pulse
        if child.is_alive:
            _, is_ready, _ = pulse.flight.pulse()
            core.was_ready = core.was_ready or is_ready
            trouble = pulse.trouble(now_s, child.started_s)
            if trouble is not None:
                log.error("engine_hangs", trouble=trouble, role=child.role)
                child.signal(signal.SIGKILL)
            return True
        if child.process is not None:
            _, has_served, _ = pulse.flight.pulse()
            status = child.note_end(now_s, has_served=has_served)
            if status == MODEL_FAILED and not any(one.was_ready for one in self._cores):
                return False
            self._note_death(child, status)
        if now_s >= child.next_s:
            child.start(now_s)
        return True

    def _look_at(self, child: Child, now_s: float) -> None:
        """Keep a front alive."""
        if child.process is not None and not child.process.is_alive():
            self._note_death(child, child.note_end(now_s))
        if child.process is None and now_s >= child.next_s:
            child.start(now_s)

    def _note_death(self, child: Child, status: int | None) -> None:
        forget_gauges(self.places.metrics, child.role)
        wait_s = max(0.0, child.next_s - time.monotonic())
        log.error("process_died", role=child.role, status=status, restarts_in_s=round(wait_s, 1))

    def _end(self) -> None:
        """Fronts first, so that what is in flight is answered; then the core."""
        number = self._asked[0] if self._asked else signal.SIGTERM
        grace_s = self.settings.drain_grace_s + self.settings.drain_timeout_s
        self._stop(self._fronts, number, grace_s + END_S)
        self._stop([core.child for core in self._cores], signal.SIGTERM, END_S)

    @staticmethod
    def _stop(children: list[Child], number: int, within_s: float) -> None:
        for child in children:
            child.signal(number)
        until_s = time.monotonic() + within_s
        for child in children:
            if child.process is None:
                continue
            child.process.join(max(0.0, until_s - time.monotonic()))
            if child.process.is_alive():
                log.warning("process_killed", role=child.role)
                child.process.kill()
                child.process.join()
