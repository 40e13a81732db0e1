"""The watchdog and the hang detector: an engine that hangs is seen, one that is slow or paused is left alone."""

from multiprocessing.process import BaseProcess
from pathlib import Path

from nestvec.ipc.status_page import StatusPage
from nestvec.processes.child import NEIGHBOUR_S, Child, HangDetector, Restarts
from nestvec.processes.supervisor import HEARTBEAT_TIMEOUT_S, LOADING_HEARTBEAT_TIMEOUT_S
from nestvec.processes.watchdog import EXIT_CODE, Watchdog
from typing_extensions import override


def detector(status_page: StatusPage) -> HangDetector:
    """Return a detector with the time-outs of an engine process."""
    return HangDetector(status_page, HEARTBEAT_TIMEOUT_S, LOADING_HEARTBEAT_TIMEOUT_S)


def test_readiness_goes_off_and_then_the_process_ends() -> None:
    """Readiness goes off when a batch is late, comes back where it ends after all, and else the process ends."""
    over = [0.0]
    told: list[bool] = []
    ended: list[int] = []
    watchdog = Watchdog(lambda: over[0], 10.0, told.append, end=ended.append)
    watchdog.check()
    assert not told
    over[0] = 3.0
    watchdog.check()
    watchdog.check()
    assert told == [True]
    over[0] = 0.0
    watchdog.check()
    assert told == [True, False]
    over[0] = 10.5
    watchdog.check()
    assert ended == [EXIT_CODE]


def test_an_engine_that_is_silent_or_overdue_is_in_trouble(tmp_path: Path) -> None:
    """An engine process is in trouble where it is silent or overdue; it may be silent for longer while it loads."""
    status_page = StatusPage(tmp_path / "flight")
    hang_detector = detector(status_page)

    def look(now_s: float) -> str | None:
        hang_detector.trouble(now_s - 0.5, 0.0)  # the supervisor looks all the time
        return hang_detector.trouble(now_s, 0.0)

    status_page.reset()
    for step in range(int(LOADING_HEARTBEAT_TIMEOUT_S * 2)):
        assert look(step / 2) is None
    assert look(LOADING_HEARTBEAT_TIMEOUT_S + 1) == "silent"
    status_page.beat(200.0, is_ready=True, overdue_s=0.0)
    assert look(200.5) is None
    for step in range(1, int(HEARTBEAT_TIMEOUT_S * 2)):
        assert look(200 + step / 2) is None
    assert look(200 + HEARTBEAT_TIMEOUT_S + 1) == "silent"
    status_page.beat(300.0, is_ready=True, overdue_s=1.0)
    assert look(300.2) == "overdue"


def test_a_supervisor_that_was_held_up_does_not_judge(tmp_path: Path) -> None:
    """Where supervisor and engine were paused together, as in a container, the engine gets its time again."""
    status_page = StatusPage(tmp_path / "flight")
    status_page.beat(100.0, is_ready=True, overdue_s=0.0)
    hang_detector = detector(status_page)
    assert hang_detector.trouble(100.1, 0.0) is None
    assert hang_detector.trouble(500.0, 0.0) is None
    assert hang_detector.trouble(500.5, 0.0) is None
    assert hang_detector.trouble(501.0 + HEARTBEAT_TIMEOUT_S, 0.0) is None  # held up once more
    trouble = None
    for step in range(11):
        trouble = hang_detector.trouble(501.5 + HEARTBEAT_TIMEOUT_S + step / 2, 0.0)
    assert trouble == "silent"


def test_those_that_waited_for_one_that_hung_get_a_moment(tmp_path: Path) -> None:
    """A neighbour that runs again is left alone; one that hangs itself is found soon after."""
    status_page = StatusPage(tmp_path / "flight")
    status_page.beat(100.0, is_ready=True)
    hang_detector = detector(status_page)
    end_s = 100 + HEARTBEAT_TIMEOUT_S
    for step in range(101):
        hang_detector.trouble(100 + step * HEARTBEAT_TIMEOUT_S / 100, 0.0)
    assert hang_detector.trouble(end_s + 0.1, 0.0) == "silent"
    hang_detector.grant(end_s + 0.1)
    assert hang_detector.trouble(end_s + 0.2, 0.0) is None
    assert hang_detector.trouble(end_s + NEIGHBOUR_S, 0.0) is None
    assert hang_detector.trouble(end_s + 0.2 + NEIGHBOUR_S, 0.0) == "silent"
    status_page.beat(end_s + 1.3, is_ready=True)
    assert hang_detector.trouble(end_s + 1.4, 0.0) is None


def test_a_new_process_is_not_judged_by_what_the_last_one_noted(tmp_path: Path) -> None:
    """It may take its time to load; and it is told what became of those before it."""
    status_page = StatusPage(tmp_path / "flight")
    told: list[Restarts] = []

    class NoProcess(BaseProcess):
        """One that is never started, and always runs."""

        exitcode = None

        @override
        def start(self) -> None:
            """Do nothing."""

        @override
        def is_alive(self) -> bool:
            """Return that it runs."""
            return True

        @override
        def close(self) -> None:
            """Do nothing."""

    def make(restarts: Restarts) -> BaseProcess:
        told.append(restarts)
        return NoProcess()

    child = Child("front-0", make, detector(status_page))
    child.start(100.0)
    status_page.beat(100.0, is_ready=True, overdue_s=1.0)
    assert child.trouble(100.5) == "overdue"
    child.kill_hung()
    assert child.trouble(100.6) is None  # once is enough
    child.note_end(100.7)
    child.start(100.8)
    for step in range(30):
        assert child.trouble(101.0 + step / 2) is None
    child.note_end(120.0)
    child.start(120.0)
    assert told == [Restarts(0, False), Restarts(1, True), Restarts(2, False)]  # noqa: FBT003


def test_back_off_is_for_processes_that_never_served(tmp_path: Path) -> None:
    """A process that has served, or lived for a while, is started again at once; others wait ever longer."""
    status_page = StatusPage(tmp_path / "flight")
    child = Child("core", lambda _: None, detector(status_page))  # type: ignore[arg-type, return-value] # none is started
    waits = []
    for _ in range(8):
        child.note_end(0.0)
        waits.append(child.next_s)
    assert waits[0] > 0
    assert waits == sorted(waits)
    assert waits[-1] == 15.0
    status_page.beat(0.0, is_ready=True)
    child.note_end(0.0)
    assert child.next_s == 0.0
    status_page.reset()
    child.note_end(0.0)
    child.started_s = 0.0
    child.note_end(100.0)
    assert child.next_s == 100.0
