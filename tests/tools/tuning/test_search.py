"""The search for settings, with a fake clock: it keeps what is clearly fastest, in bounded time."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.backend import Backend
from nestvec.engine.types import Batch, Item, RawOutput
from nestvec.model_store.artefacts.execution_settings import ExecutionSettings
from nestvec.tools.tuning.search import BUDGETS, MIN_GAIN, SettingsSearch
from nestvec.tools.tuning.workload import cut_batches, typical_items
from numpy.typing import NDArray
from typing_extensions import override

from tests.support.fakes import FAKE_INFO, FakeBackend

START = ExecutionSettings(256, 2, 1, 128, 1)


@dataclass
class Machine:
    """A machine of known speed, on which time passes only when it runs a batch.

    Attributes:
        per_token_s: Seconds that a token takes.
        per_batch_s: Seconds that a batch takes besides.
        slow_above: Batches of more tokens than this take twice as long.
        best_plain: The best `plain_attention_tokens`; any other is a tenth slower.
        now_s: The clock.
        opened: Number of backends opened.
        closed: Number of backends closed.
        runs: Inputs and tokens of each batch.
    """

    per_token_s: float = 1e-4
    per_batch_s: float = 0.0
    slow_above: int = 10**9
    best_plain: int = 128
    now_s: float = 0.0
    opened: int = 0
    closed: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)

    def open(self, tuned: ExecutionSettings, _spins: bool) -> Backend:  # noqa: FBT001 - as the search calls it
        """Open a backend whose runs move the clock."""
        self.opened += 1
        return TimedBackend(machine=self, tuned=tuned)

    def clock(self) -> float:
        """Return the time in seconds."""
        return self.now_s


class TimedBackend(FakeBackend):
    """A backend that moves its machine's clock."""

    def __init__(self, machine: Machine, tuned: ExecutionSettings) -> None:
        super().__init__()
        self.machine, self.tuned = machine, tuned

    @override
    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch by its number of tokens."""
        return float(lengths.sum())

    @override
    def run(self, batch: Batch) -> RawOutput:
        """Move the clock by the time that a batch takes, and return vectors of ones."""
        tokens = int(batch.lengths.sum())
        slow = 2 if tokens > self.machine.slow_above else 1
        wrong = 1 if self.tuned.plain_attention_tokens == self.machine.best_plain else 1.1
        took_s = self.machine.per_batch_s + tokens * self.machine.per_token_s * slow * wrong
        self.machine.now_s += took_s / self.tuned.intra_op_threads**0.5
        self.machine.runs.append((len(batch.lengths), tokens))
        return RawOutput(pooled=np.ones((len(batch.lengths), self.info.hidden_size), np.float32))

    @override
    def close(self) -> None:
        """Count the close."""
        self.machine.closed += 1


def search(machine: Machine, **changes: Any) -> SettingsSearch:
    """Return a search on a machine with one CPU, as the fake's time is not parallel."""
    defaults: dict[str, Any] = {
        "open_graph": machine.open,
        "start": replace(START, worker_threads=1),
        "has_attentions": True,
        "cpus": 1,
        "max_tokens": 256,
        "vocabulary_size": 100,
        "limit_s": 60.0,
        "clock": machine.clock,
    }
    return SettingsSearch(**{**defaults, **changes})


@pytest.mark.parametrize("best", [0, 64, 256])
def test_the_faster_attention_is_found(best: int) -> None:
    """A difference of a tenth is more than noise."""
    assert search(Machine(best_plain=best)).run().plain_attention_tokens == best


def test_large_batches_win_where_each_costs_extra() -> None:
    """The budget stays small where large batches are slow."""
    assert search(Machine(per_batch_s=0.05)).run().max_batch_tokens == max(BUDGETS)
    assert search(Machine(slow_above=300, per_batch_s=0.001)).run().max_batch_tokens <= 300


def test_equal_candidates_change_nothing() -> None:
    """A difference below two per cent is noise."""
    assert MIN_GAIN > 1
    start = replace(START, worker_threads=1)
    assert search(Machine()).run() == start


@given(limit_s=st.floats(1, 120), per_token_s=st.floats(1e-6, 1e-2))
def test_time_is_bounded_and_every_backend_closed(limit_s: float, per_token_s: float) -> None:
    """A slow machine or model gets fewer stages: it takes at most twice the limit and a few minimal runs."""
    machine = Machine(per_token_s=per_token_s)
    search(machine, limit_s=limit_s).run()
    assert machine.opened == machine.closed
    assert machine.now_s <= 2 * limit_s + 40 * 1000 * per_token_s


def test_graphs_with_one_attention_are_not_tuned_for_another() -> None:
    """Graphs in int8 and bf16 have only one attention."""
    tuning = search(Machine(), has_attentions=False)
    tuning.run()
    assert {timing.stage for timing in tuning.timings} == {"budget"}


def test_each_stage_times_the_current_choice_and_keeps_one() -> None:
    """Each stage marks exactly one candidate as chosen."""
    tuning = search(Machine(per_batch_s=0.01))
    tuning.run()
    for stage in ("attention", "budget"):
        assert sum(t.is_chosen for t in tuning.timings if t.stage == stage) == 1


@given(seed=st.integers(0, 1000), budget=st.integers(1, 3000), tokens=st.integers(1, 5000))
def test_batches_keep_every_item_and_the_budget(seed: int, budget: int, tokens: int) -> None:
    """An item that costs more than the budget runs alone."""
    items = typical_items(tokens, 256, 1000, seed=seed)
    backend = TimedBackend(Machine(), START)
    batches = cut_batches(items, backend, budget)
    assert sorted(i.tokens for batch in batches for i in batch) == sorted(i.tokens for i in items)
    assert all(len(b) == 1 or sum(i.tokens for i in b) <= budget for b in batches)
    assert sum(i.tokens for i in items) >= tokens


def test_on_a_gpu_the_knee_is_found() -> None:
    """Beyond the knee batches are hardly faster, and queries would wait longer behind them."""
    # At 8,192 tokens the fixed cost of a batch is 1.2 %.
    machine = Machine(per_token_s=1e-7, per_batch_s=1e-5)
    chosen = search(machine, is_gpu=True, start=replace(START, max_batch_tokens=16_384)).run()
    assert chosen.max_batch_tokens == 8192
    assert chosen.plain_attention_tokens == START.plain_attention_tokens


def test_on_a_gpu_no_candidate_asks_for_more_than_memory_holds() -> None:
    """Candidates that would are timed at what memory holds."""
    machine = Machine(per_token_s=1e-5, per_batch_s=1e-3)

    def open_small(tuned: ExecutionSettings, spins: bool) -> Backend:  # noqa: FBT001 - as the search calls it
        backend = machine.open(tuned, spins)
        assert isinstance(backend, TimedBackend)
        backend.info = replace(backend.info, max_cost=4096.0)
        return backend

    search(machine, is_gpu=True, open_graph=open_small).run()
    assert max(tokens for _, tokens in machine.runs) <= 4096


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80), st.floats(1, 2000))
def test_batches_are_as_large_as_the_budget_allows(lengths: list[int], budget: float) -> None:
    """Items come longest first and none is lost; one more input would not fit into a batch."""
    backend = FakeBackend()
    items = [Item(np.ones(n, np.int32)) for n in lengths]
    batches = cut_batches(items, backend, budget)
    assert [item.tokens for batch in batches for item in batch] == sorted(lengths, reverse=True)
    for batch, after in zip(batches, [*batches[1:], []], strict=True):
        lengths_of_batch = np.array([item.tokens for item in batch])
        assert len(batch) == 1 or backend.cost(lengths_of_batch) <= budget
        if after:
            assert backend.cost(np.append(lengths_of_batch, after[0].tokens)) > budget


@given(st.lists(st.integers(1, 12), min_size=1, max_size=80), st.floats(1, 100))
def test_long_inputs_are_timed_as_the_server_runs_them(lengths: list[int], budget: float) -> None:
    """Inputs that may not be mixed come in batches of their own length, as the scheduler gives them."""
    backend = FakeBackend(replace(FAKE_INFO, max_mixed_tokens=6))
    batches = cut_batches([Item(np.ones(n, np.int32)) for n in lengths], backend, budget)
    cut = [[item.tokens for item in batch] for batch in batches]
    assert sorted(n for batch in cut for n in batch) == sorted(lengths)
    for batch in cut:
        assert max(batch) <= 6 or len(set(batch)) == 1
