"""Starts the processes of a server, watches them, starts again what has died, and ends them in order.

An engine process is killed where it hangs: it has no heartbeat for some seconds (it was stopped, or is in a deadlock),
or a batch is far over its time. HTTP processes go on meanwhile and keep their calls.
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
from nestvec.ipc.status_page import StatusPage
from nestvec.jobs.store import lock_folder
from nestvec.observability.logs import get_logger
from nestvec.observability.shared_metrics import forget_gauges
from nestvec.processes.engine_process import MODEL_FAILED, run_engine_process
from nestvec.processes.http_process import http_role, run_http_process
from nestvec.processes.runtime_dir import RuntimeDir
from nestvec.processes.web_server import BACKLOG, bind_all, url_of

log = get_logger(__name__)

POLL_S: Final = 0.1
BACKOFF_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0, 15.0)
# A process that lived so long, or served, is started again at once.
STABLE_AFTER_S: Final = 5.0
# An engine process should be heard ten times a second.
HEARTBEAT_TIMEOUT_S: Final = 5.0
# Writing a large graph may hold all threads up.
LOADING_HEARTBEAT_TIMEOUT_S: Final = 120.0
# How long a process may take to end beyond the time to drain.
END_TIMEOUT_S: Final = 10.0


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
    runtime_dir = RuntimeDir.make()
    try:
        supervisor = Supervisor(settings, runtime_dir, listeners, url)
        log.info("listening", url=url, model=settings.model, http_processes=settings.http_processes)
        status = supervisor.run()
    finally:
        runtime_dir.remove()
        if lock is not None:
            lock.close()
    sys.exit(status)


@dataclass(slots=True)
class Child:
    """A process that is started again whenever it has ended.

    Attributes:
        role: Its role, in metrics and logs.
        make: Makes the next process, given how many there were before.
        process: The running process; None where it has to be started.
        starts: How many processes were started.
        started_s: When the last one was started, monotonic time.
        next_s: When the next one may be started, monotonic time.
        failures: How many ended early in a row.
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
        """Whether the process runs."""
        return self.process is not None and self.process.is_alive()

    def start(self, now_s: float) -> None:
        """Start a new process."""
        self.process = self.make(self.starts)
        self.process.start()
        self.starts += 1
        self.started_s = now_s

    def note_end(self, now_s: float, *, has_served: bool = False) -> int | None:
        """Take note that the process has ended, and decide when the next may start.

        Args:
            now_s: Monotonic time.
            has_served: Whether the process was ready: what ended it was not its start.

        Returns:
            The exit status.
        """
        process, self.process = self.process, None
        status = None if process is None else process.exitcode
        if process is not None:
            process.close()
        is_stable = has_served or now_s - self.started_s >= STABLE_AFTER_S
        self.failures = 0 if is_stable else self.failures + 1
        self.next_s = now_s + BACKOFF_S[min(self.failures, len(BACKOFF_S) - 1)]
        return status

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        if self.process is not None and self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)


@dataclass(slots=True)
class HangDetector:
    """Tells whether an engine process hangs, from what it notes of itself.

    Attributes:
        status_page: Where the engine process notes it.
    """

    status_page: StatusPage
    _last_check_s: float = 0.0
    _held_up_until_s: float = 0.0

    def trouble(self, now_s: float, started_s: float) -> str | None:
        """What is wrong, "silent" or "overdue"; None where nothing is.

        Args:
            now_s: Monotonic time.
            started_s: When the process was started, monotonic time.
        """
        # Where we were held up ourselves (a paused container), the engine was too: it gets its time again.
        if now_s - self._last_check_s > 1.0:
            self._held_up_until_s = now_s
        self._last_check_s = now_s
        beat_s, is_ready, overdue_s = self.status_page.heartbeat()
        last_heard_s = max(beat_s, started_s, self._held_up_until_s)
        timeout_s = HEARTBEAT_TIMEOUT_S if is_ready else LOADING_HEARTBEAT_TIMEOUT_S
        if now_s - last_heard_s > timeout_s:
            return "silent"
        return "overdue" if overdue_s > 0 else None


@dataclass(slots=True)
class EngineProcess:
    """An engine process, and what is known of it.

    Attributes:
        child: The process.
        hang_detector: Tells whether it hangs.
        was_ready: Whether it has ever been ready.
    """

    child: Child
    hang_detector: HangDetector
    was_ready: bool = False


@dataclass(slots=True)
class Supervisor:
    """Keeps the engine processes and the HTTP processes of a server alive.

    Attributes:
        settings: All settings.
        runtime_dir: Shared by all processes.
        listeners: Sockets from which every HTTP process takes connections.
        url: Where the server is reached.
    """

    settings: Settings
    runtime_dir: RuntimeDir
    listeners: list[socket.socket]
    url: str
    _engines: list[EngineProcess] = field(init=False)
    _http: list[Child] = field(init=False)
    _stop_signals: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Plan the processes; none starts before `run`."""
        spawn = multiprocessing.get_context("spawn")
        settings, runtime_dir = self.settings, self.runtime_dir

        def make_engine(number: int) -> Callable[[int], BaseProcess]:
            engine_settings = settings.for_engine(number)
            return lambda starts: spawn.Process(
                target=run_engine_process,
                args=(engine_settings, runtime_dir, number, starts),
                name=f"nestvec-{runtime_dir.engine_files(number).role}",
            )

        def make_http(number: int) -> Callable[[int], BaseProcess]:
            arguments = (settings, runtime_dir, number, self.url, self.listeners)
            return lambda starts: spawn.Process(
                target=run_http_process,
                args=(*arguments, starts),
                name=f"nestvec-{http_role(number)}",
            )

        self._engines = []
        for number in range(settings.engine_count):
            files = runtime_dir.engine_files(number)
            status_page = StatusPage(files.status_page)
            child = Child(files.role, make_engine(number))
            self._engines.append(EngineProcess(child, HangDetector(status_page)))
        self._http = [
            Child(http_role(number), make_http(number)) for number in range(settings.http_processes)
        ]

    def run(self) -> int:
        """Supervise until stopped, or until no engine can serve its model.

        Returns:
            The exit status of the server: 0, or 1 where no model can be served.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            while not self._stop_signals:
                now_s = time.monotonic()
                due = self._due_engines()
                if not all(self._supervise_engine(engine, now_s) for engine in due):
                    return 1
                for child in self._http:
                    self._supervise_http(child, now_s)
                sentinels = [
                    child.process.sentinel for child in self._all() if child.process is not None
                ]
                multiprocessing.connection.wait(sentinels, POLL_S)
        finally:
            self._end()
        return 0

    def _all(self) -> list[Child]:
        return [*self._http, *(engine.child for engine in self._engines)]

    def _due_engines(self) -> list[EngineProcess]:
        """The engines to keep alive: the first, and the others once it has served.

        The first may have to fetch and export the model for all of them.
        """
        return self._engines if self._engines[0].was_ready else self._engines[:1]

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """Pass SIGHUP on to the HTTP processes; stop at any other signal, and at once where it is the second."""
        if number == signal.SIGHUP:
            for child in self._http:
                child.signal(signal.SIGHUP)
            return
        self._stop_signals.append(number)
        if len(self._stop_signals) > 1:
            for child in self._all():
                child.signal(signal.SIGKILL)

    def _supervise_engine(self, engine: EngineProcess, now_s: float) -> bool:
        """Keep an engine process alive, and kill it where it hangs; False where no engine can serve its model."""
        child, hang_detector = engine.child, engine.hang_detector
        if child.is_alive:
            _, is_ready, _ = hang_detector.status_page.heartbeat()
            engine.was_ready = engine.was_ready or is_ready
            trouble = hang_detector.trouble(now_s, child.started_s)
            if trouble is not None:
                log.error("engine_hangs", trouble=trouble, role=child.role)
                child.signal(signal.SIGKILL)
            return True
        if child.process is not None:
            _, has_served, _ = hang_detector.status_page.heartbeat()
            status = child.note_end(now_s, has_served=has_served)
            if status == MODEL_FAILED and not any(other.was_ready for other in self._engines):
                return False
            self._note_death(child, status)
        if now_s >= child.next_s:
            child.start(now_s)
        return True

    def _supervise_http(self, child: Child, now_s: float) -> None:
        """Keep an HTTP process alive."""
        if child.process is not None and not child.process.is_alive():
            self._note_death(child, child.note_end(now_s))
        if child.process is None and now_s >= child.next_s:
            child.start(now_s)

    def _note_death(self, child: Child, status: int | None) -> None:
        forget_gauges(self.runtime_dir.metrics, child.role)
        wait_s = max(0.0, child.next_s - time.monotonic())
        log.error("process_died", role=child.role, status=status, restarts_in_s=round(wait_s, 1))

    def _end(self) -> None:
        """End the HTTP processes first, so that what is in flight is answered; then the engine processes."""
        number = self._stop_signals[0] if self._stop_signals else signal.SIGTERM
        drain_s = self.settings.drain_grace_s + self.settings.drain_timeout_s
        self._stop(self._http, number, drain_s + END_TIMEOUT_S)
        self._stop([engine.child for engine in self._engines], signal.SIGTERM, END_TIMEOUT_S)

    @staticmethod
    def _stop(children: list[Child], number: int, timeout_s: float) -> None:
        """Send a signal to processes, and kill those that have not ended in time."""
        for child in children:
            child.signal(number)
        deadline_s = time.monotonic() + timeout_s
        for child in children:
            if child.process is None:
                continue
            child.process.join(max(0.0, deadline_s - time.monotonic()))
            if child.process.is_alive():
                log.warning("process_killed", role=child.role)
                child.process.kill()
                child.process.join()
