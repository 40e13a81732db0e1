"""The search, with a fake clock: it keeps what is clearly fastest, in bounded time."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.backend import Backend
from nestvec.engine.types import Batch, Item, RawOutput
from nestvec.model_store.artefacts.execution_settings import Tuned
from nestvec.tools.tuning.search import BUDGETS, LEAST_GAIN, Search
from nestvec.tools.tuning.workload import cut, typical_items
from numpy.typing import NDArray
from typing_extensions import override

from tests.support.fakes import FakeBackend

START = Tuned(256, 2, 1, 128, 1)


@dataclass
class Machine:
    """A machine of known speed: time passes only when it runs a batch.

    Attributes:
        per_batch_s: Fixed cost of a batch.
        slow_above: Batches of more tokens cost double.
    """

    per_token_s: float = 1e-4
    per_batch_s: float = 0.0
    slow_above: int = 10**9
    best_plain: int = 128
    now_s: float = 0.0
    opened: int = 0
    closed: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)

    def open(self, tuned: Tuned, _spins: bool) -> Backend:  # noqa: FBT001 - as the search calls it
        """A backend whose runs move the clock."""
        self.opened += 1
        return TimedBackend(machine=self, tuned=tuned)

    def clock(self) -> float:
        """Seconds."""
        return self.now_s


class TimedBackend(FakeBackend):
    """Moves its machine's clock."""

    def __init__(self, machine: Machine, tuned: Tuned) -> None:
        super().__init__()
        self.machine, self.tuned = machine, tuned

    @override
    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Plain tokens."""
        return float(lengths.sum())

    @override
    def run(self, batch: Batch) -> RawOutput:
        """Zeros."""
        tokens = int(batch.lengths.sum())
        slow = 2 if tokens > self.machine.slow_above else 1
        wrong = 1 if self.tuned.plain_attention_tokens == self.machine.best_plain else 1.1
        took = self.machine.per_batch_s + tokens * self.machine.per_token_s * slow * wrong
        self.machine.now_s += took / self.tuned.intra_op_threads**0.5
        self.machine.runs.append((len(batch.lengths), tokens))
        return RawOutput(pooled=np.ones((len(batch.lengths), self.hidden_size), np.float32))

    @override
    def close(self) -> None:
        """Count."""
        self.machine.closed += 1


def search(machine: Machine, **changes: Any) -> Search:
    """A search on a machine with one CPU, as the fake knows no parallel time."""
    asked: dict[str, Any] = {
        "open_graph": machine.open,
        "start": replace(START, worker_threads=1),
        "has_attentions": True,
        "cpus": 1,
        "max_tokens": 256,
        "vocabulary_size": 100,
        "limit_s": 60.0,
        "clock": machine.clock,
    }
    return Search(**{**asked, **changes})


@pytest.mark.parametrize("best", [0, 64, 256])
def test_the_faster_attention_is_found(best: int) -> None:
    """A tenth is more than noise."""
    assert search(Machine(best_plain=best)).run().plain_attention_tokens == best


def test_large_batches_win_where_each_costs_extra() -> None:
    """And the budget is kept small where large ones are slow."""
    assert search(Machine(per_batch_s=0.05)).run().max_batch_tokens == max(BUDGETS)
    assert search(Machine(slow_above=300, per_batch_s=0.001)).run().max_batch_tokens <= 300


def test_equal_candidates_change_nothing() -> None:
    """Less than two per cent is noise."""
    assert LEAST_GAIN > 1
    start = replace(START, worker_threads=1)
    assert search(Machine()).run() == start


@given(limit_s=st.floats(1, 120), per_token_s=st.floats(1e-6, 1e-2))
def test_time_is_bounded_and_every_backend_closed(limit_s: float, per_token_s: float) -> None:
    """A slow machine or model gets fewer stages, never hours: twice the limit and a few least runs."""
    machine = Machine(per_token_s=per_token_s)
    search(machine, limit_s=limit_s).run()
    assert machine.opened == machine.closed
    assert machine.now_s <= 2 * limit_s + 40 * 1000 * per_token_s


def test_graphs_with_one_attention_are_not_asked_for_another() -> None:
    """Only int8 and bf16 graphs have one."""
    tuning = search(Machine(), has_attentions=False)
    tuning.run()
    assert {timing.stage for timing in tuning.timings} == {"budget"}


def test_the_current_choice_is_always_timed_and_one_kept_a_stage() -> None:
    """Each stage marks exactly one."""
    tuning = search(Machine(per_batch_s=0.01))
    tuning.run()
    for stage in ("attention", "budget"):
        assert sum(t.is_chosen for t in tuning.timings if t.stage == stage) == 1


@given(seed=st.integers(0, 1000), budget=st.integers(1, 3000), tokens=st.integers(1, 5000))
def test_cutting_keeps_every_item_and_the_budget(seed: int, budget: int, tokens: int) -> None:
    """An item dearer than the budget runs alone."""
    items = typical_items(tokens, 256, 1000, seed=seed)
    backend = TimedBackend(Machine(), START)
    batches = cut(items, backend, budget)
    assert sorted(i.tokens for batch in batches for i in batch) == sorted(i.tokens for i in items)
    assert all(len(b) == 1 or sum(i.tokens for i in b) <= budget for b in batches)
    assert sum(i.tokens for i in items) >= tokens


def test_on_a_gpu_the_knee_is_found() -> None:
    """Larger batches than it are hardly faster, and queries would wait longer behind them."""
    machine = Machine(
        per_token_s=1e-7, per_batch_s=1e-5
    )  # at 8,192 tokens a batch's fixed cost is 1.2%
    found = search(machine, is_gpu=True, start=replace(START, max_batch_tokens=16_384)).run()
    assert found.max_batch_tokens == 8192
    assert found.plain_attention_tokens == START.plain_attention_tokens


def test_on_a_gpu_no_candidate_asks_for_more_than_memory_holds() -> None:
    """Those that would are timed at what it holds."""
    machine = Machine(per_token_s=1e-5, per_batch_s=1e-3)

    def open_small(tuned: Tuned, spins: bool) -> Backend:  # noqa: FBT001 - as the search calls it
        backend = machine.open(tuned, spins)
        assert isinstance(backend, TimedBackend)
        backend.max_cost = 4096.0
        return backend

    search(machine, is_gpu=True, open_graph=open_small).run()
    assert max(tokens for _, tokens in machine.runs) <= 4096


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80), st.floats(1, 2000))
def test_batches_are_as_large_as_the_budget_allows(lengths: list[int], budget: float) -> None:
    """Longest first, none lost; one more input would not fit."""
    backend = FakeBackend()
    items = [Item(np.ones(n, np.int32)) for n in lengths]
    batches = cut(items, backend, budget)
    assert [one.tokens for batch in batches for one in batch] == sorted(lengths, reverse=True)
    for batch, after in zip(batches, [*batches[1:], []], strict=True):
        own = np.array([one.tokens for one in batch])
        assert len(own) == 1 or backend.cost(own) <= budget
        if after:
            assert backend.cost(np.append(own, after[0].tokens)) > budget
