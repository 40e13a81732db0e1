"""How slow a machine was in each second is told from its batches, and simulated."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.tools.bench.load_generator import arrivals
from nestvec.tools.planning.replica import SimulatedBatch

from benchmarks.open_load import plan_report
from benchmarks.open_load.plan_report import SimulatedRun
from benchmarks.open_load.runs import MeasuredRun
from benchmarks.open_load.slowness import Slowness
from tests.tools.planning.machines import real_machine

RUN = MeasuredRun(3, 0.8, 230.0, 8.0, (230.0, 0.02, 0.1), 1800, 1e-4, 0.01, 0.008, 0.0)
SECONDS = np.arange(1.0, 9.0)


@pytest.fixture(autouse=True)
def simulate_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is simulated here has no chance in it: once is enough."""
    monkeypatch.setattr(plan_report, "SIMULATIONS", 1)


@given(st.lists(st.floats(0.25, 4.0), min_size=1, max_size=12), st.floats(0.0, 30.0))
def test_time_and_work_are_each_other_s_inverse(times: list[float], at_s: float) -> None:
    """What a machine has done by a moment takes it until that moment, and half as fast a machine does half."""
    ends_s = np.arange(1.0, len(times) + 1)
    slowness = Slowness(ends_s, np.array(times))
    moment = np.array([at_s])
    assert slowness.time_s(slowness.work_s(moment)) == pytest.approx(moment)
    half = Slowness(ends_s, 2 * np.array(times))
    assert half.work_s(moment) == pytest.approx(slowness.work_s(moment) / 2)
    assert Slowness.none(ends_s).work_s(moment) == pytest.approx(moment)


def test_a_machine_that_was_slow_for_seconds_is_found_and_simulated() -> None:
    """Batches tell of a run in which the machine took almost twice as long for two seconds.

    On one that keeps its speed the same requests would wait for a fraction of that; with what is found they do as well.
    """
    machine = real_machine(noise=0.0)
    times = np.ones(len(SECONDS))
    times[3:5] = 1.8
    truth = Slowness(SECONDS, times)
    due_s = list(arrivals(RUN.requests_per_s, RUN.duration_s, RUN.seed))
    lengths: list[tuple[int, ...]] = [(60 + 13 * number % 61,) for number in range(len(due_s))]
    slow = SimulatedRun(RUN, machine, lengths)
    batches = slow.batches(truth)
    samples = [(0.0, 0.0, 0.0, 0.0), *(so_far(batches, at_s) for at_s in SECONDS)]
    measured = SimulatedRun(with_samples(samples), machine, lengths)
    found = measured.slowness()
    assert found.times == pytest.approx(times, abs=0.12)
    expected, seen, steady = slow.figures(truth), measured.figures(found), measured.figures()
    assert seen == pytest.approx(expected, rel=0.1)
    assert steady[2] < expected[2] / 3


def test_seconds_without_a_batch_say_nothing() -> None:
    """Where nothing ran the machine counts as fast as it is on average elsewhere: as the coefficients say."""
    machine = real_machine(noise=0.0)
    samples = [(float(second), 0.0, 0.0, 0.0) for second in range(9)]
    due_s = list(arrivals(RUN.requests_per_s, RUN.duration_s, RUN.seed))
    texts: list[tuple[int, ...]] = [(90,)] * len(due_s)
    silent = SimulatedRun(with_samples(samples), machine, texts)
    assert silent.slowness().times == pytest.approx(np.ones(8))


def so_far(batches: list[SimulatedBatch], at_s: float) -> tuple[float, ...]:
    """Return what workers have run by a moment, as a sample says it."""
    ended = [batch for batch in batches if batch.ended_s <= at_s]
    tokens, run_s = (sum(batch[field] for batch in ended) for field in (2, 1))
    return at_s, float(len(ended)), tokens, run_s


def with_samples(samples: Sequence[tuple[float, ...]]) -> MeasuredRun:
    """Return the run with samples."""
    return replace(RUN, samples=tuple(samples))
