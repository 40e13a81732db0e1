"""The watchdog and the hang detector: an engine that hangs is seen, one that is slow or paused is left alone."""

from pathlib import Path

from nestvec.ipc.status_page import StatusPage
from nestvec.processes.supervisor import (
    HEARTBEAT_TIMEOUT_S,
    LOADING_HEARTBEAT_TIMEOUT_S,
    Child,
    HangDetector,
)
from nestvec.processes.watchdog import EXIT_CODE, Watchdog


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
    hang_detector = HangDetector(status_page)

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
    hang_detector = HangDetector(status_page)
    assert hang_detector.trouble(100.1, 0.0) is None
    assert hang_detector.trouble(500.0, 0.0) is None
    assert hang_detector.trouble(500.5, 0.0) is None
    assert hang_detector.trouble(501.0 + HEARTBEAT_TIMEOUT_S, 0.0) is None  # held up once more
    trouble = None
    for step in range(11):
        trouble = hang_detector.trouble(501.5 + HEARTBEAT_TIMEOUT_S + step / 2, 0.0)
    assert trouble == "silent"


def test_back_off_is_for_processes_that_never_served() -> None:
    """A process that has served, or lived for a while, is started again at once; others wait ever longer."""
    child = Child("core", lambda _: None)  # type: ignore[arg-type, return-value] # none is started
    waits = []
    for _ in range(8):
        child.note_end(0.0)
        waits.append(child.next_s)
    assert waits[0] > 0
    assert waits == sorted(waits)
    assert waits[-1] == 15.0
    child.note_end(0.0, has_served=True)
    assert child.next_s == 0.0
    child.note_end(0.0)
    child.started_s = 0.0
    child.note_end(100.0)
    assert child.next_s == 100.0
