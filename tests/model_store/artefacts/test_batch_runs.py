"""Batches on threads: what comes out is the same for any number of them."""

import sys
import threading
import time
from collections.abc import Sequence

import pytest
from nestvec.engine.types import Item
from nestvec.errors import BackendError
from nestvec.model_store.artefacts.batch_runs import batches_by_length, run_batches

from tests.support.fakes import item


def items(*lengths: int) -> list[Item]:
    """Return items of these lengths."""
    return [item(*range(1, length + 1), index=number) for number, length in enumerate(lengths)]


def test_batches_keep_to_their_budget_and_a_long_item_is_alone() -> None:
    """Items come by length; one beyond the budget shares its batch with none."""
    batches = batches_by_length(items(40, 2, 5, 3, 41, 4), 10, None)
    assert [[i.tokens for i in batch] for batch in batches] == [[2, 3, 4], [5], [40], [41]]


def test_long_items_share_with_their_own_length_only() -> None:
    """As in service, where a route through attention depends on a text's own length alone."""
    batches = batches_by_length(items(8, 2, 6, 6, 7, 5), 100, 5)
    assert [[i.tokens for i in batch] for batch in batches] == [[2, 5], [6, 6], [7], [8]]


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_results_come_in_the_order_of_the_batches(threads: int) -> None:
    """Whichever thread runs which batch; the largest is begun first, and progress is told by the caller's thread."""
    batches = [items(1), items(9, 9), items(4), items(2, 2, 2)]
    begun: list[int] = []
    told: list[tuple[str, int]] = []

    def run(batch: Sequence[Item]) -> int:
        begun.append(sum(i.tokens for i in batch))
        return sum(i.tokens for i in batch)

    def advance(count: int) -> None:
        told.append((threading.current_thread().name, count))

    assert run_batches(batches, run, threads, advance) == [1, 18, 4, 6]
    assert begun[0] == 18
    assert told == [(threading.current_thread().name, count) for count in (2, 3, 1, 1)]


def test_several_batches_run_at_once() -> None:
    """Two that wait for each other both end."""
    meet = threading.Barrier(2, timeout=10)
    assert sorted(run_batches([items(1), items(2)], lambda _: meet.wait(), 2)) == [0, 1]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_ends_the_rest(threads: int) -> None:
    """The error passes through, and batches that had not begun never do, however late the caller hears of it."""
    begun: list[int] = []
    everyone = threading.Barrier(threads, timeout=10)

    def run(batch: Sequence[Item]) -> None:
        begun.append(batch[0].tokens)
        everyone.wait()
        time.sleep(0.05)  # by now the caller waits for the first result
        raise BackendError("no memory")

    lengths = range(1, 101)
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(
        0.2
    )  # the failing thread goes on for long before the caller gets its turn
    try:
        with pytest.raises(BackendError, match="no memory"):
            run_batches([items(length) for length in lengths], run, threads)
    finally:
        sys.setswitchinterval(switch_s)
    assert sorted(begun) == sorted(lengths)[-threads:]
