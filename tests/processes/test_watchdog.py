"""The watchdog and the pulse: an engine that hangs is seen, one that is slow or paused is left alone."""

from pathlib import Path

from nestvec.ipc.status_page import Flight
from nestvec.processes.supervisor import LOADING_SILENT_S, SILENT_S, Child, Pulse
from nestvec.processes.watchdog import EXIT_CODE, Watchdog


def test_readiness_goes_off_and_then_the_process_ends() -> None:
    """And comes back where the batch ends after all."""
    over = [0.0]
    told: list[bool] = []
    ended: list[int] = []
    dog = Watchdog(lambda: over[0], 10.0, told.append, end=ended.append)
    dog.look()
    assert not told
    over[0] = 3.0
    dog.look()
    dog.look()
    assert told == [True]
    over[0] = 0.0
    dog.look()
    assert told == [True, False]
    over[0] = 10.5
    dog.look()
    assert ended == [EXIT_CODE]


def test_a_core_that_is_silent_or_overdue_is_in_trouble(tmp_path: Path) -> None:
    """It has longer while it loads."""
    flight = Flight(tmp_path / "flight", b"k")
    pulse = Pulse(flight)

    def look(now_s: float) -> str | None:
        pulse.trouble(now_s - 0.5, 0.0)  # the supervisor looks all the time
        return pulse.trouble(now_s, 0.0)

    flight.wipe()
    for step in range(int(LOADING_SILENT_S * 2)):
        assert look(step / 2) is None
    assert look(LOADING_SILENT_S + 1) == "silent"
    flight.beat(200.0, is_ready=True, overdue_s=0.0)
    assert look(200.5) is None
    for step in range(1, int(SILENT_S * 2)):
        assert look(200 + step / 2) is None
    assert look(200 + SILENT_S + 1) == "silent"
    flight.beat(300.0, is_ready=True, overdue_s=1.0)
    assert look(300.2) == "overdue"


def test_whoever_was_held_up_himself_does_not_judge(tmp_path: Path) -> None:
    """A container that was paused: supervisor and core alike."""
    flight = Flight(tmp_path / "flight", b"k")
    flight.beat(100.0, is_ready=True, overdue_s=0.0)
    pulse = Pulse(flight)
    assert pulse.trouble(100.1, 0.0) is None
    assert pulse.trouble(500.0, 0.0) is None
    assert pulse.trouble(500.5, 0.0) is None
    assert pulse.trouble(501.0 + SILENT_S, 0.0) is None  # held up once more
    found = None
    for step in range(11):
        found = pulse.trouble(501.5 + SILENT_S + step / 2, 0.0)
    assert found == "silent"


def test_back_off_is_for_processes_that_never_served() -> None:
    """Whoever served, or lived for a while, is started again at once."""
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
