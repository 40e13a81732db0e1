"""Token buckets: no more than the rate over any time, in one process and in several."""

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.keys.buckets import Buckets
from nestvec.keys.shared_rows import MAX_ROWS


def test_a_bucket_empties_and_fills() -> None:
    """A bucket gives what it holds, and then tells how long to wait."""
    buckets = Buckets()
    levels = [buckets.take("r", 2, 2, 100.0, cost=1) for _ in range(3)]
    assert [level.wait_s for level in levels] == [0, 0, 0.5]
    assert levels[1].left == 0
    assert levels[2].reset_s == 1.0
    assert buckets.take("r", 2, 2, 100.5, cost=1).wait_s == 0
    assert buckets.peek("r", 2, 2, 200.0).left == 2


def test_debts_are_paid_first() -> None:
    """What was charged beyond the level has to flow in before anything is given again."""
    buckets = Buckets()
    buckets.charge("t", 60, 1, 0.0, 100)
    level = buckets.peek("t", 60, 1, 0.0)
    assert (level.left, level.wait_s) == (-40, 41)
    assert buckets.peek("t", 60, 1, 41.0).wait_s == 0


def test_a_clock_that_jumps_back_gives_nothing_away() -> None:
    """A clock of a restored machine may jump back: the bucket then gets nothing."""
    buckets = Buckets()
    buckets.take("r", 5, 1, 1000.0, cost=5)
    assert buckets.take("r", 5, 1, 10.0, cost=1).wait_s == 1


@given(
    st.floats(0.1, 50),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 20)), min_size=1, max_size=60),
)
def test_over_any_time_no_more_than_burst_and_rate(
    rate: float, takes: list[tuple[float, float]]
) -> None:
    """Whatever is taken and whenever, it is never more than one burst and the rate."""
    buckets, now, taken, limit = Buckets(), 0.0, 0.0, 20.0
    for pause, cost in takes:
        now += pause
        if buckets.take("r", limit, rate, now, cost=cost).wait_s == 0:
            taken += cost
    assert taken <= limit + rate * now + 1e-6


def test_more_keys_than_buckets() -> None:
    """Keys beyond the size of the table share the last bucket, and none fails."""
    buckets = Buckets()
    for number in range(MAX_ROWS + 5):
        buckets.peek(str(number), 1, 1, 0.0)
    assert buckets.take("new", 1, 1, 0.0, cost=1).limit == 1


def spend(path: Path, count: int) -> None:
    """Take from a shared bucket one by one, in a process of its own."""
    buckets = Buckets(path)
    taken = sum(buckets.take("r", 1000, 1e-9, 1.0, cost=1).wait_s == 0 for _ in range(count))
    (path.parent / f"{multiprocessing.current_process().pid}.taken").write_text(str(taken))


@pytest.mark.process
def test_processes_share_a_bucket(tmp_path: Path) -> None:
    """Three processes together take exactly what the bucket held."""
    spawn = multiprocessing.get_context("spawn")
    path = tmp_path / "buckets"
    processes = [spawn.Process(target=spend, args=(path, 400)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sum(int(file.read_text()) for file in tmp_path.glob("*.taken")) == 1000
