"""What outlives a killed core: what ran, who is suspect, who is quarantined."""

import dataclasses
from pathlib import Path

import pytest
from nestvec.errors import QuarantinedError
from nestvec.ipc.quarantine import QUARANTINE_S, Suspects
from nestvec.ipc.status_page import MAX_LANES, MAX_NOTED, Flight

from tests.support.fakes import FakeClock, item

SECRET = b"k" * 32


@pytest.fixture
def clock() -> FakeClock:
    """Seconds that move when told."""
    return FakeClock()


def begin(folder: Path, clock: FakeClock) -> tuple[Flight, Suspects]:
    """A core's process comes up."""
    flight = Flight(folder / "flight", SECRET)
    return flight, Suspects(flight, folder / "suspects.json", clock)


def test_whoever_ran_at_a_death_runs_alone_until_it_has_run(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Those that had ended or waited are not suspect."""
    _, first = begin(tmp_path, clock)
    lane, other = first.lane(), first.lane()
    lane.begin([item(1), item(2)])
    other.begin([item(3)])
    other.end()
    _, second = begin(tmp_path, clock)
    assert second.check([item(1), item(2), item(3), item(4)]) == [True, True, False, False]
    assert second.counts == (2, 0)
    second.clear(item(1))
    assert second.check([item(1), item(2)]) == [False, True]


def die_alone(folder: Path, clock: FakeClock, times: int) -> Suspects:
    """A core dies again and again while nothing but one item runs."""
    for _ in range(times):
        _, suspects = begin(folder, clock)
        suspects.lane().begin([item(6, 6, 6)])
    return begin(folder, clock)[1]


def test_two_deaths_alone_are_quarantine(tmp_path: Path, clock: FakeClock) -> None:
    """For an hour, and across processes; its neighbours in a call are named clean."""
    assert die_alone(tmp_path, clock, 1).check([item(6, 6, 6)]) == [True]
    suspects = die_alone(tmp_path, clock, 1)
    with pytest.raises(QuarantinedError) as caught:
        suspects.check([item(1), item(6, 6, 6, index=1)])
    assert caught.value.input_index == 1
    assert suspects.counts == (0, 1)
    clock.now_s += QUARANTINE_S + 1
    assert suspects.check([item(6, 6, 6)]) == [False]
    assert begin(tmp_path, clock)[1].counts == (0, 0)


def test_deaths_in_company_prove_nothing(tmp_path: Path, clock: FakeClock) -> None:
    """However many."""
    for _ in range(5):
        _, suspects = begin(tmp_path, clock)
        lanes = [suspects.lane(), suspects.lane()]
        lanes[0].begin([item(1)])
        lanes[1].begin([item(2)])
    assert begin(tmp_path, clock)[1].check([item(1), item(2)]) == [True, True]


def test_running_well_between_two_deaths_starts_the_count_anew(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A kill from outside may hit any item twice."""
    suspects = die_alone(tmp_path, clock, 1)
    suspects.clear(item(6, 6, 6))
    suspects.lane().begin([item(6, 6, 6)])
    assert begin(tmp_path, clock)[1].check([item(6, 6, 6)]) == [True]


def test_the_file_says_nothing_of_texts(tmp_path: Path, clock: FakeClock) -> None:
    """Token ids are under a secret of the running server."""
    _, suspects = begin(tmp_path, clock)
    suspects.lane().begin([item(1, 2, 3)])
    flight = Flight(tmp_path / "flight", b"other" * 6)
    assert Suspects(flight, tmp_path / "none.json", clock).check([item(1, 2, 3)]) == [False]
    assert (tmp_path / "flight").stat().st_mode & 0o077 == 0


def test_what_is_asked_of_a_text_makes_another_item(tmp_path: Path) -> None:
    """An exit may crash where all layers do not."""
    flight = Flight(tmp_path / "flight", SECRET)
    one = item(1, 2)
    assert flight.digest(one) != flight.digest(dataclasses.replace(one, exits=(2,)))
    assert flight.digest(one) == flight.digest(dataclasses.replace(one, index=9, key_id="k"))


def test_more_workers_and_items_than_there_is_room_for(tmp_path: Path, clock: FakeClock) -> None:
    """They run all the same, unnoted; places are used again."""
    flight, suspects = begin(tmp_path, clock)
    lanes = [suspects.lane() for _ in range(MAX_LANES + 3)]
    for lane in lanes:
        lane.begin([item(5)])
    assert len(flight.running()) == MAX_LANES
    lanes[0].begin([item(n) for n in range(MAX_NOTED + 10)])
    assert max(map(len, flight.running())) == MAX_NOTED
    for lane in lanes:
        lane.end()
    del lane, lanes
    suspects.lane().begin([item(5)])
    assert len(flight.running()) == 1


def test_beats_and_the_queue_are_read_by_others(tmp_path: Path) -> None:
    """Through the same file."""
    writer, reader = (Flight(tmp_path / "flight", SECRET) for _ in range(2))
    writer.beat(12.5, is_ready=True, overdue_s=3.0)
    writer.note_queue(100, 0.5, 1000)
    assert reader.pulse() == (12.5, True, 3.0)
    assert reader.queue() == (100, 0.5, 1000)
    writer.wipe()
    assert reader.pulse() == (0.0, False, 3.0)
    assert reader.queue() == (0, 0, 0)


def test_a_process_that_cannot_go_on_leaves_its_work_noted_until_it_is_ended(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that is lost: the next process finds what was running, and holds it for suspect."""
    monkeypatch.setattr("nestvec.ipc.quarantine.END_S", 0.01)
    _, suspects = begin(tmp_path, clock)
    suspects.lane().begin([item(5)])
    suspects.await_end()
    _, after = begin(tmp_path, clock)
    assert after.check([item(5), item(6)]) == [True, False]
