"""Coefficients of a machine: written and read, refused with the field's name, and fitted from batches."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.backend import CostModel
from nestvec.engine.types import Batch, Layout, RawOutput
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import FormatError
from nestvec.tools.bench.load_generator import arrivals
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.fleet import FleetOptions, simulate
from nestvec.tools.planning.measuring.batch_times import BenchClock, fit_batch_times
from nestvec.tools.planning.open_load import OpenLoad, fit_idle_slowdown, requests_at
from nestvec.tools.planning.replica import ReplicaOptions
from nestvec.tools.planning.saturation import (
    BusyLoad,
    fit_busy,
    fit_wait,
    fit_wake,
    saturate,
    saturated_requests_per_s,
    steady_requests_per_s,
)
from typing_extensions import override

from tests.support.fakes import FakeBackend, FakeClock
from tests.tools.planning.machines import machine, real_machine


def test_a_file_holds_all_that_was_measured(tmp_path: Path) -> None:
    """What is written is read back as it was, and prices batches as the backend did."""
    path = tmp_path / "machine.json"
    path.write_text(real_machine().json_text())
    found = MachineCoefficients.read(path)
    assert found == real_machine()
    lengths = np.array([10, 100], np.int64)
    assert found.pricing.cost()(lengths) == CostModel.of_bert(Layout.PACKED, 384)(lengths)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"slowdown": None}, "slowdown"),
        ({"workers": 0}, "workers"),
        ({"batch": {"fixed_s": -1, "token_s": 0, "area_s": 0}}, "batch.fixed_s"),
        ({"batch": {"fixed_s": 0, "token_s": 0, "area_s": 0}}, "batch"),
        ({"front": {"request_s": 0, "text_s": 0}}, "front.token_s"),
        ({"noise": float("nan")}, "noise"),
        ({"another": 1}, "another"),
        ({"format": 2}, "format"),
    ],
)
def test_what_is_missing_or_wrong_is_named_with_the_command_that_measures_it(
    change: dict[str, Any], named: str
) -> None:
    """The error says which field, and how to have it measured."""
    values = json.loads(real_machine().json_text()) | change
    if change.get(named, 0) is None:
        del values[named]
    with pytest.raises(FormatError, match=named) as raised:
        MachineCoefficients.parse(json.dumps(values), "machine.json")
    assert "nestvec bench --coefficients" in raised.value.message


def test_a_missing_file_is_told_from_a_broken_one(tmp_path: Path) -> None:
    """Both say how to make it anew."""
    for content in (None, "{", "[]", "x" * 2_000_000):
        path = tmp_path / "machine.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(FormatError, match="nestvec bench --coefficients"):
            MachineCoefficients.read(path)


class TimedBackend(FakeBackend):
    """A backend whose batches take what a formula says, on a clock of its own."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock

    @override
    def run(self, batch: Batch) -> RawOutput:
        """Let the time of the formula pass: less a token where the text is alone."""
        tokens = int(batch.lengths.sum())
        self.clock.now_s += 0.002 + (2e-5 if batch.is_lone else 5e-5) * tokens
        return super().run(batch)


def test_times_of_batches_are_fitted() -> None:
    """What a batch and a token take comes out as it was put in, with and without company."""
    clock = FakeClock()
    times = fit_batch_times(
        TimedBackend(clock),
        CostModel(Layout.PACKED, 0.0),
        Pooler("mean"),
        max_tokens=256,
        vocabulary_size=600,
        clock=BenchClock(clock, lambda _: None),
    )
    assert times.batch.fixed_s == pytest.approx(0.002, rel=0.01)
    assert times.batch.token_s == pytest.approx(5e-5, rel=0.01)
    assert times.lone.token_s == pytest.approx(2e-5, rel=0.01)
    assert times.noise == pytest.approx(0, abs=1e-6)
    assert times.largest_tokens == 1024
    assert times.error < 0.01


@pytest.mark.parametrize("dispatch_s", [2e-4, 0.0])
def test_a_busy_server_tells_its_slow_down_and_what_lies_between_batches(dispatch_s: float) -> None:
    """A machine that has forgotten both gets them back from how long batches ran and how much it answers."""
    lengths: list[tuple[int, ...]] = [(60 + 13 * number % 61,) for number in range(200)]
    truth = real_machine(slowdown=1.3, dispatch_s=dispatch_s, noise=0.0)
    busy = saturate(ReplicaOptions(truth, 256), lengths, 8)
    forgotten = truth.model_copy(update={"slowdown": 1.0, "dispatch_s": 3e-3})
    measured = BusyLoad(lengths, 8, busy.requests_per_s, busy.idle_s)
    fitted = fit_busy(ReplicaOptions(forgotten, 256), [measured])
    assert fitted.slowdown == pytest.approx(1.3, rel=0.01)
    assert fitted.dispatch_s == pytest.approx(dispatch_s, abs=2e-5)


def test_what_ends_while_connections_fall_idle_is_not_counted() -> None:
    """A hundred requests a second, the first tenth in any time and the last ones slow."""
    first = [0.5] * 10
    steady = [1.0 + 0.01 * number for number in range(86)]
    last = [5.0, 6.0, 7.0, 8.0]
    assert steady_requests_per_s([*first, *steady, *last], 4) == pytest.approx(100)
    with pytest.raises(ValueError, match="more requests"):
        steady_requests_per_s([1.0, 2.0], 4)


def test_how_much_of_a_request_is_waking_up_is_told_by_a_busy_server() -> None:
    """One after the other they take as much of the thread as before; under load what was measured."""
    lengths: list[tuple[int, ...]] = [(60 + 13 * number % 61,) for number in range(160)]
    truth = real_machine(noise=0.0)
    front = truth.front.model_copy(update={"wake_s": 3e-4})
    truth = truth.model_copy(update={"front": front})
    # While the caller is at work, the thread has nothing to do and falls asleep.
    options = ReplicaOptions(truth, 256, client_send_s=1e-4, client_receive_s=1e-4)
    alone, busy = (saturate(options, lengths, n).front_s for n in (1, 16))
    assert busy < alone - 1e-4
    whole = front.model_copy(update={"request_s": front.request_s + 2 * 3e-4, "wake_s": 0.0})
    unknown = replace(options, coefficients=truth.model_copy(update={"front": whole}))
    assert saturate(unknown, lengths, 1).front_s == pytest.approx(alone)
    fitted = fit_wake(unknown, lengths, 16, busy).front
    assert fitted.wake_s == pytest.approx(3e-4, rel=0.02)
    assert fitted.request_s == pytest.approx(front.request_s, rel=0.03)
    # A server that takes as much under load has nothing to wake up for.
    assert fit_wake(unknown, lengths, 16, 2 * alone).front.wake_s == pytest.approx(0, abs=1e-6)


def test_what_requests_wait_for_on_no_core_is_what_is_missing_to_what_was_measured() -> None:
    """Requests one after the other take as long as measured; a server that is busy answers as many as before."""
    lengths: list[tuple[int, ...]] = [(90,)] * 60
    truth = real_machine(noise=0.0)
    front = truth.front.model_copy(update={"wait_s": 0.0})
    unknown = ReplicaOptions(truth.model_copy(update={"front": front}), 256)
    without_s = 1 / saturated_requests_per_s(unknown, lengths, 1)
    fitted = fit_wait(unknown, lengths, without_s + 0.003)
    assert fitted.front.wait_s == pytest.approx(0.003)
    options = ReplicaOptions(fitted, 256)
    assert 1 / saturated_requests_per_s(options, lengths, 1) == pytest.approx(without_s + 0.003)
    busy = saturated_requests_per_s(options, lengths * 3, 16)
    assert busy == pytest.approx(saturated_requests_per_s(unknown, lengths * 3, 16), rel=0.02)
    assert fit_wait(unknown, lengths, without_s / 2).front.wait_s == 0
    # What it waited before is of no account.
    assert fit_wait(options, lengths, without_s + 0.002).front.wait_s == pytest.approx(0.002)


def test_how_much_slower_an_idle_machine_is_is_told_by_how_long_batches_ran() -> None:
    """It comes back from the seconds of batches of open loads, and a machine that is no slower has none."""
    lengths: list[tuple[int, ...]] = [(60 + 13 * number % 61,) for number in range(240)]
    truth = real_machine(noise=0.0, idle_slowdown=0.3)
    loads = []
    for rate_per_s in (60.0, 150.0):
        times_s = list(itertools.islice(arrivals(rate_per_s, 60.0, 3), len(lengths)))
        requests = requests_at(times_s, lengths)
        options = ReplicaOptions(truth, 256, client_send_s=5e-5, client_receive_s=5e-5)
        batch_s = simulate(FleetOptions(1, options), requests).batch_s
        loads.append(OpenLoad(times_s, lengths, 1e-4, batch_s))
    unknown = ReplicaOptions(truth.model_copy(update={"idle_slowdown": 1.0}), 256)
    assert fit_idle_slowdown(unknown, loads).idle_slowdown == pytest.approx(0.3, abs=0.02)
    faster = [replace(load, batch_s=load.batch_s / 2) for load in loads]
    assert fit_idle_slowdown(unknown, faster).idle_slowdown == pytest.approx(0, abs=0.01)


def test_a_saturated_server_does_what_its_batches_allow() -> None:
    """One worker whose batches take 10 ms and hold one text answers a hundred texts a second."""
    options = ReplicaOptions(machine(), 64)
    assert saturated_requests_per_s(options, [(64,)] * 100, 4) == pytest.approx(100)
    with pytest.raises(ValueError, match="more requests"):
        saturated_requests_per_s(options, [(64,)] * 4, 4)
