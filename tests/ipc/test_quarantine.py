"""What outlives a killed engine process: what ran, which items are suspects, which are quarantined."""

import shutil
from pathlib import Path

import pytest
from nestvec.engine.core.ports import InFlightSlot
from nestvec.engine.types import Item, ItemOptions
from nestvec.errors import QuarantinedError
from nestvec.ipc.in_flight_journal import InFlightJournal
from nestvec.ipc.quarantine import QUARANTINE_S, Quarantine
from nestvec.ipc.shared_file import MAX_NOTED_ITEMS, MAX_SLOTS
from nestvec.ipc.status_page import StatusPage

from tests.support.fakes import FakeClock, item, submission

SECRET = b"k" * 32
PLAIN = ItemOptions()


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that moves when told."""
    return FakeClock()


def start(folder: Path, clock: FakeClock) -> tuple[InFlightJournal, Quarantine]:
    """Do what an engine process does when it comes up."""
    journal = InFlightJournal(folder / "flight", SECRET)
    return journal, Quarantine(journal, folder / "suspects.json", clock)


def begin(slot: InFlightSlot, *items: Item) -> None:
    """Let a worker run items."""
    slot.begin(items, [PLAIN] * len(items))


def check(quarantine: Quarantine, *items: Item) -> list[bool]:
    """Return which items must run alone."""
    return quarantine.check(submission(*items))


def test_whoever_ran_at_a_death_runs_alone_until_it_has_run(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Items that had ended or waited when the process died are no suspects."""
    _, first = start(tmp_path, clock)
    slot, other = first.slot(), first.slot()
    begin(slot, item(1), item(2))
    begin(other, item(3))
    other.end()
    _, second = start(tmp_path, clock)
    assert check(second, item(1), item(2), item(3), item(4)) == [True, True, False, False]
    assert second.counts == (2, 0)
    second.clear(item(1), PLAIN)
    assert check(second, item(1), item(2)) == [False, True]


def die_alone(folder: Path, clock: FakeClock, times: int) -> Quarantine:
    """Let the process die again and again while nothing but one item runs."""
    for _ in range(times):
        _, quarantine = start(folder, clock)
        begin(quarantine.slot(), item(6, 6, 6))
    return start(folder, clock)[1]


def test_two_deaths_alone_are_quarantine(tmp_path: Path, clock: FakeClock) -> None:
    """An item that ran alone at two deaths is refused for an hour, by every later process; its call names it."""
    assert check(die_alone(tmp_path, clock, 1), item(6, 6, 6)) == [True]
    quarantine = die_alone(tmp_path, clock, 1)
    with pytest.raises(QuarantinedError) as caught:
        check(quarantine, item(1), item(6, 6, 6, index=1))
    assert caught.value.input_index == 1
    assert quarantine.counts == (0, 1)
    clock.now_s += QUARANTINE_S + 1
    assert check(quarantine, item(6, 6, 6)) == [False]
    assert start(tmp_path, clock)[1].counts == (0, 0)


def test_deaths_in_company_prove_nothing(tmp_path: Path, clock: FakeClock) -> None:
    """However many deaths an item survives in company, it stays a suspect only."""
    for _ in range(5):
        _, quarantine = start(tmp_path, clock)
        slots = [quarantine.slot(), quarantine.slot()]
        begin(slots[0], item(1))
        begin(slots[1], item(2))
    assert check(start(tmp_path, clock)[1], item(1), item(2)) == [True, True]


def test_running_well_between_two_deaths_starts_the_count_anew(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A kill from outside may hit any item twice, so an item that ran well in between is not quarantined."""
    quarantine = die_alone(tmp_path, clock, 1)
    quarantine.clear(item(6, 6, 6), PLAIN)
    begin(quarantine.slot(), item(6, 6, 6))
    assert check(start(tmp_path, clock)[1], item(6, 6, 6)) == [True]


def test_the_file_says_nothing_of_texts(tmp_path: Path, clock: FakeClock) -> None:
    """Token ids are hashed with a secret of the running server, and the file is its owner's alone."""
    _, quarantine = start(tmp_path, clock)
    begin(quarantine.slot(), item(1, 2, 3))
    journal = InFlightJournal(tmp_path / "flight", b"other" * 6)
    stranger = Quarantine(journal, tmp_path / "none.json", clock)
    assert check(stranger, item(1, 2, 3)) == [False]
    assert (tmp_path / "flight").stat().st_mode & 0o077 == 0


def test_what_is_asked_of_a_text_makes_another_item(tmp_path: Path) -> None:
    """An exit, or the states of a window, may crash where a plain vector does not; key and index do not matter."""
    digest = InFlightJournal(tmp_path / "flight", SECRET).digest
    plain = digest(item(1, 2), PLAIN)
    assert digest(item(1, 2), ItemOptions(exits=(2,))) != plain
    assert digest(Item(item(1, 2).ids, gives_states=True), PLAIN) != plain
    assert digest(item(1, 2, index=9), ItemOptions(key_id="k")) == plain


def test_more_workers_and_items_than_there_is_room_for(tmp_path: Path, clock: FakeClock) -> None:
    """Workers and items beyond the journal's room run all the same, unnoted; slots are used again."""
    journal, quarantine = start(tmp_path, clock)
    slots = [quarantine.slot() for _ in range(MAX_SLOTS + 3)]
    for slot in slots:
        begin(slot, item(5))
    assert len(journal.running()) == MAX_SLOTS
    begin(slots[0], *[item(n) for n in range(MAX_NOTED_ITEMS + 10)])
    assert max(map(len, journal.running())) == MAX_NOTED_ITEMS
    for slot in slots:
        slot.end()
        slot.release()
    begin(quarantine.slot(), item(5))
    begin(slots[0], item(5))
    assert len(journal.running()) == 1, "a slot that was given back notes nothing"


def test_the_heartbeat_and_the_queue_are_read_by_others(tmp_path: Path) -> None:
    """What one process writes into the status page another reads, and the journal beside it stays as it is."""
    writer, reader = (StatusPage(tmp_path / "flight") for _ in range(2))
    journal = InFlightJournal(tmp_path / "flight", SECRET)
    begin(journal.slot(), item(5))
    writer.beat(12.5, is_ready=True, overdue_s=3.0)
    writer.note_queue(100, 0.5, 1000)
    assert reader.heartbeat() == (12.5, True, 3.0)
    assert reader.queue_load() == (100, 0.5, 1000)
    writer.reset()
    assert reader.heartbeat() == (0.0, False, 0.0)
    assert reader.queue_load() == (0, 0, 0)
    assert len(journal.running()) == 1


def test_a_process_that_cannot_go_on_leaves_its_work_noted_until_it_is_ended(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a GPU is lost the next process finds what was running, and holds it for suspect."""
    monkeypatch.setattr("nestvec.ipc.quarantine.END_S", 0.01)
    _, quarantine = start(tmp_path, clock)
    begin(quarantine.slot(), item(5))
    quarantine.await_end()
    _, after = start(tmp_path, clock)
    assert check(after, item(5), item(6)) == [True, False]


def test_suspects_are_written_again_where_their_file_has_vanished(
    tmp_path: Path, clock: FakeClock
) -> None:
    """The folder may be cleaned while the engine runs: what it has learnt goes to the next one all the same."""
    folder = tmp_path / "run"
    folder.mkdir()
    die_alone(folder, clock, 1)
    _, second = start(folder, clock)
    shutil.rmtree(folder)
    second.keep()
    assert folder.stat().st_mode & 0o777 == 0o700
    _, third = start(folder, clock)
    assert third.counts == (1, 0)
    shutil.rmtree(folder)
    folder.write_text("")  # nothing can be written there any more
    third.keep()
    third.clear(item(6, 6, 6), PLAIN)
    assert third.counts == (0, 0)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"deaths": {"x": 1}, "until_s": {}}', b"{}"]
)
def test_a_damaged_list_of_suspects_ends_no_engine(
    tmp_path: Path, clock: FakeClock, content: bytes
) -> None:
    """It begins anew."""
    (tmp_path / "suspects.json").write_bytes(content)
    _, quarantine = start(tmp_path, clock)
    assert quarantine.counts == (0, 0)
