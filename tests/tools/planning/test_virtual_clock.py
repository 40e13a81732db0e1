"""The virtual clock and the cores: what happens when, and how fast."""

import math

import pytest
from nestvec.tools.planning.cores import RECENT_S, Cores, SerialThread
from nestvec.tools.planning.virtual_clock import VirtualClock


def test_events_come_in_order_of_time_and_then_of_planning() -> None:
    """Nothing runs before its time; of one time what was planned first runs first; what is late runs now."""
    clock = VirtualClock()
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, clock.now_s))

    def note_and_plan() -> None:
        note("first")
        clock.at(0.5, lambda: note("late"))

    clock.at(2.0, lambda: note("second"))
    clock.at(1.0, note_and_plan)
    clock.at(2.0, lambda: note("third"))
    clock.run()
    assert seen == [("first", 1.0), ("late", 1.0), ("second", 2.0), ("third", 2.0)]


def ends_of(cores: Cores, works: list[tuple[float, float, int]]) -> list[float]:
    """Begin works at times, with so many threads, and return when each ends."""
    ends = [0.0] * len(works)

    def begin(number: int, work_s: float, threads: int) -> None:
        def end() -> None:
            ends[number] = cores.clock.now_s

        cores.run(work_s, end, threads)

    for number, (at_s, work_s, threads) in enumerate(works):
        cores.clock.at(at_s, lambda n=number, w=work_s, t=threads: begin(n, w, t))  # type: ignore[misc]
    cores.clock.run()
    return ends


def test_threads_share_cores_evenly() -> None:
    """Two threads on two cores run at full speed, a third slows all of them down to two thirds."""
    assert ends_of(Cores(VirtualClock(), 2), [(0, 1, 1), (0, 1, 1)]) == pytest.approx([1, 1])
    assert ends_of(Cores(VirtualClock(), 2), [(0, 1, 1)] * 3) == pytest.approx([1.5] * 3)
    # The second comes when the first is half done: then each runs at half speed.
    assert ends_of(Cores(VirtualClock(), 1), [(0, 1, 1), (0.5, 0.25, 1)]) == pytest.approx(
        [1.25, 1.0]
    )


def test_busy_neighbours_slow_a_thread_down() -> None:
    """Work takes as many times as long as the slow-down says while all cores are busy, and in between in between."""
    assert ends_of(Cores(VirtualClock(), 2, 1.2), [(0, 1, 1), (0, 1, 1)]) == pytest.approx(
        [1.2, 1.2]
    )
    assert ends_of(Cores(VirtualClock(), 2, 1.2), [(0, 1, 1)]) == pytest.approx([1.0])
    assert ends_of(Cores(VirtualClock(), 3, 1.2), [(0, 1, 1), (0, 1, 1)]) == pytest.approx(
        [1.1, 1.1]
    )
    # What was measured on several cores already was slowed down by itself.
    assert ends_of(Cores(VirtualClock(), 2, 1.2), [(0, 1, 2)]) == pytest.approx([1.0])


def test_work_in_several_threads_takes_its_part_of_the_cores() -> None:
    """A third thread beside two of one work: each has two thirds of a core."""
    assert ends_of(Cores(VirtualClock(), 2), [(0, 1, 2), (0, 1, 1)]) == pytest.approx([1.5, 1.5])
    # Once it is alone again it goes on at full speed.
    assert ends_of(Cores(VirtualClock(), 2), [(0, 1, 2), (0, 0.25, 1)]) == pytest.approx(
        [1.125, 0.375]
    )


def test_how_idle_cores_were_of_late() -> None:
    """All of them at first; what one of two does counts the more the longer it goes on, and is forgotten after."""
    cores, seen = Cores(VirtualClock(), 2), []
    assert cores.idle_share() == 1.0
    cores.run(RECENT_S, lambda: None)
    for due_s in (RECENT_S, 2 * RECENT_S, 20 * RECENT_S):
        cores.clock.at(due_s, lambda: seen.append(cores.idle_share()))
    cores.clock.run()
    busy = 0.5 * (1 - math.exp(-1))
    assert seen == pytest.approx([1 - busy, 1 - busy * math.exp(-1), 1.0], abs=1e-6)


def test_a_serial_thread_wakes_up_once_for_all_that_waits() -> None:
    """What comes while it is at work costs no more than itself; what comes later is woken for."""
    cores = Cores(VirtualClock(), 2)
    loop, ends = SerialThread(cores, wake_s=0.1), []
    for due_s in (0.0, 0.0, 0.5, 2.0):
        cores.clock.at(due_s, lambda: loop.run(0.5, lambda: ends.append(cores.clock.now_s)))
    cores.clock.run()
    assert ends == pytest.approx([0.6, 1.1, 1.6, 2.6])
    assert loop.work_s == pytest.approx(2.2)


def test_a_serial_thread_does_one_thing_after_the_other() -> None:
    """An event loop's work waits for what came before it, and the core's time is counted once."""
    cores = Cores(VirtualClock(), 4)
    loop, ends = SerialThread(cores), []
    for _ in range(3):
        loop.run(0.5, lambda: ends.append(cores.clock.now_s))
    cores.clock.run()
    assert ends == pytest.approx([0.5, 1.0, 1.5])
    assert cores.busy_core_s == pytest.approx(1.5)
