"""Starts the processes of a server, watches them, starts again what has died, and ends them in order.

A process is killed where it hangs: it has no heartbeat for some seconds (it was stopped, is in a deadlock, or its event
loop is blocked), or a batch is far over its time. HTTP processes keep their calls while an engine is replaced; while
one of them is, the others serve on.
"""

import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Final

from nestvec.config.settings import Settings
from nestvec.errors import StoreError
from nestvec.ipc.status_page import StatusPage
from nestvec.jobs.folder_lock import lock_folder
from nestvec.observability.logs import get_logger
from nestvec.observability.shared_metrics import PROCESS_BYTES, forget_gauges
from nestvec.processes.child import MODEL_FAILED, Child, HangDetector, Restarts
from nestvec.processes.listeners import BACKLOG, bind_all, url_of
from nestvec.processes.process_targets import run_engine, run_http
from nestvec.processes.runtime_dir import RuntimeDir, engine_role, http_role
from nestvec.processes.runtime_home import RuntimeHome, runtime_homes, sweep

log = get_logger(__name__)

POLL_S: Final = 0.1
# How often it is looked whether the run-time folder is still there.
FOLDER_CHECK_S: Final = 1.0
# An engine process should be heard ten times a second.
HEARTBEAT_TIMEOUT_S: Final = 5.0
# Writing a large graph may hold all threads up.
LOADING_HEARTBEAT_TIMEOUT_S: Final = 120.0
# How long a process may take to end beyond the time to drain.
END_TIMEOUT_S: Final = 10.0


def run_supervised(settings: Settings) -> None:
    """Serve with processes of their own until stopped; exits with 1 where no model can be served.

    Raises:
        ConfigError: A port is taken, or there is no place for run-time files.
    """
    homes = runtime_homes(settings.data_dir)
    # First of all: what a killed server has left running may still hold the port.
    sweep(homes)
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
    processes = settings.engine_count + settings.http_processes
    home = RuntimeHome.make(homes, room_bytes=processes * PROCESS_BYTES)
    try:
        supervisor = Supervisor(settings, home, listeners, url)
        log.info("listening", url=url, model=settings.model, http_processes=settings.http_processes)
        status = supervisor.run()
    finally:
        home.remove()
        if lock is not None:
            lock.close()
    sys.exit(status)


@dataclass(slots=True)
class Supervisor:
    """Keeps the engine processes and the HTTP processes of a server alive.

    Attributes:
        settings: All settings.
        home: Where the server has its run-time files.
        listeners: Sockets from which every HTTP process takes connections.
        url: Where the server is reached.
    """

    settings: Settings
    home: RuntimeHome
    listeners: list[socket.socket]
    url: str
    _runtime_dir: RuntimeDir = field(init=False)
    _engines: list[Child] = field(init=False)
    _http: list[Child] = field(init=False)
    _stop_signals: list[int] = field(default_factory=list)
    _was_reloaded: bool = False
    _folder_checked_s: float = 0.0
    _is_folder_lost: bool = False

    def __post_init__(self) -> None:
        """Plan the processes; none starts before `run`."""
        spawn = multiprocessing.get_context("spawn")
        settings = self.settings
        self._runtime_dir = runtime_dir = RuntimeDir.make(
            self.home.folder,
            engines=settings.engine_count,
            http_processes=settings.http_processes,
        )

        def make_engine(number: int) -> Callable[[Restarts], BaseProcess]:
            engine_settings = settings.for_engine(number)
            return lambda restarts: spawn.Process(
                target=run_engine,
                args=(engine_settings, runtime_dir, number, restarts),
                name=f"nestvec-{engine_role(number)}",
            )

        def make_http(number: int) -> Callable[[Restarts], BaseProcess]:
            arguments = (settings, runtime_dir, number, self.url, self.listeners)
            return lambda restarts: spawn.Process(
                target=run_http,
                args=(*arguments, restarts),
                name=f"nestvec-{http_role(number)}",
            )

        def detector(path: Path, timeout_s: float) -> HangDetector:
            return HangDetector(StatusPage(path), timeout_s, LOADING_HEARTBEAT_TIMEOUT_S)

        self._engines = [
            Child(
                engine_role(number),
                make_engine(number),
                detector(runtime_dir.engine_files(number).status_page, HEARTBEAT_TIMEOUT_S),
            )
            for number in range(settings.engine_count)
        ]
        self._http = [
            Child(
                http_role(number),
                make_http(number),
                detector(runtime_dir.http_status_page(number), settings.http_hang_timeout_s),
            )
            for number in range(settings.http_processes)
        ]

    def run(self) -> int:
        """Supervise until stopped, or until no engine can serve its model.

        Returns:
            The exit status of the server: 0, or 1 where no model can be served, or where a process has to be started
            and there is no folder for it any more.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            while not self._stop_signals:
                now_s = time.monotonic()
                self._keep_folder(now_s)
                due = self._due_engines()
                if not all(self._supervise_engine(engine, now_s) for engine in due):
                    return 1
                if not self._supervise_http(now_s):
                    return 1
                sentinels = [
                    child.process.sentinel for child in self._all() if child.process is not None
                ]
                multiprocessing.connection.wait(sentinels, POLL_S)
        finally:
            self._end()
            self._runtime_dir.close()
        return 0

    def _all(self) -> list[Child]:
        return [*self._http, *self._engines]

    def _due_engines(self) -> list[Child]:
        """The engines to keep alive: the first, and the others once it has served.

        The first may have to fetch and export the model for all of them.
        """
        return self._engines if self._engines[0].was_ready else self._engines[:1]

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """Pass SIGHUP on to the HTTP processes; stop at any other signal, and at once where it is the second."""
        if number == signal.SIGHUP:
            self._was_reloaded = True
            for child in self._http:
                child.signal(signal.SIGHUP)
            return
        self._stop_signals.append(number)
        if len(self._stop_signals) > 1:
            for child in self._all():
                child.signal(signal.SIGKILL)

    def _supervise_engine(self, engine: Child, now_s: float) -> bool:
        """Keep an engine process alive, and kill it where it hangs; False where no engine can serve its model."""
        if engine.is_alive:
            trouble = engine.trouble(now_s)
            if trouble is not None:
                log.error("engine_hangs", trouble=trouble, role=engine.role)
                engine.kill_hung()
            return True
        if engine.has_ended:
            status = engine.note_end(now_s)
            if status == MODEL_FAILED and not any(other.was_ready for other in self._engines):
                return False
            self._note_death(engine, status)
        return self._start(engine, now_s)

    def _supervise_http(self, now_s: float) -> bool:
        """Keep the HTTP processes alive, and kill the one that hangs; False where one cannot be started."""
        hung = [child for child in self._http if child.is_alive and child.trouble(now_s)]
        if hung:
            # The others may have waited for what the first to fall silent held: a lock of a shared file.
            first = max(hung, key=lambda child: child.silent_s(now_s))
            for child in hung:
                child.hang_detector.grant(now_s)
            silent_s = round(first.silent_s(now_s), 1)
            log.error("http_process_hangs", role=first.role, silent_s=silent_s)
            first.kill_hung()
        for child in self._http:
            if child.has_ended:
                self._note_death(child, child.note_end(now_s))
            if child.process is None and not self._start(child, now_s):
                return False
        return True

    def _start(self, child: Child, now_s: float) -> bool:
        """Start a process if it is time for it; False where there is no folder for it."""
        if now_s < child.next_s:
            return True
        self._keep_folder(now_s, is_urgent=True)
        if self._is_folder_lost:
            return False
        # A new process is not there yet to take SIGHUP, which would end it: it inherits that the signal is held back.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            child.start(now_s)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        if self._was_reloaded and child in self._http:
            # It begins with the settings of the server's start.
            child.signal(signal.SIGHUP)
        self._note_processes()
        return True

    def _keep_folder(self, now_s: float, *, is_urgent: bool = False) -> None:
        """Make the run-time folder anew where it has vanished; look for that once a second, or now.

        While that fails nothing is started, and what runs goes on.
        """
        if not is_urgent and now_s - self._folder_checked_s < FOLDER_CHECK_S:
            return
        self._folder_checked_s = now_s
        was_lost = self._is_folder_lost
        try:
            if self.home.keep():
                log.warning("runtime_folder_made_anew", folder=str(self.home.folder))
            self._runtime_dir.ensure()
            self._is_folder_lost = False
        except OSError as error:
            self._is_folder_lost = True
            if not was_lost:
                reason = error.strerror
                log.error("runtime_folder_lost", folder=str(self.home.folder), reason=reason)  # noqa: TRY400 - the reason is whole

    def _note_processes(self) -> None:
        """Note which processes there are, for the server after a killed one."""
        processes = [child.process for child in self._all()]
        try:
            self.home.note_processes(
                p.pid for p in processes if p is not None and p.pid is not None
            )
        except OSError as error:
            log.warning("processes_not_noted", reason=error.strerror)

    def _note_death(self, child: Child, status: int | None) -> None:
        forget_gauges(self._runtime_dir.metrics, child.role)
        wait_s = max(0.0, child.next_s - time.monotonic())
        log.error("process_died", role=child.role, status=status, restarts_in_s=round(wait_s, 1))

    def _end(self) -> None:
        """End the HTTP processes first, so that what is in flight is answered; then the engine processes."""
        number = self._stop_signals[0] if self._stop_signals else signal.SIGTERM
        drain_s = self.settings.drain_grace_s + self.settings.drain_timeout_s
        # The port is closed when the last HTTP process closes it: nothing more waits there then, to be cut off here.
        for listener in self.listeners:
            listener.close()
        self._stop(self._http, number, drain_s + END_TIMEOUT_S)
        self._stop(self._engines, signal.SIGTERM, END_TIMEOUT_S)

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
