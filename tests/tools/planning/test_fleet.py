"""Simulated servers: known answers of queueing theory, nothing lost, the same seed the same figures."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.types import Priority
from nestvec.tools.planning.autoscaler import Autoscaler
from nestvec.tools.planning.balancers import BalancerPolicy
from nestvec.tools.planning.fleet import (
    FleetOptions,
    FleetResult,
    ReplicaFailure,
    Traffic,
    simulate,
)
from nestvec.tools.planning.replica import ReplicaOptions, SimulatedRequest

from tests.tools.planning.machines import machine, real_machine


def run(
    options: FleetOptions, rate: float, duration_s: float, *, seed: int = 1, **of_texts: Any
) -> FleetResult:
    """Simulate Poisson traffic of texts of 64 tokens, or of others."""
    traffic = Traffic(rate, duration_s, **({"tokens": (64, 64)} | of_texts))
    return simulate(options, traffic.requests(random.Random(seed)))


def single(**changes: Any) -> FleetOptions:
    """One server that runs one text a batch and never refuses: an M/D/1 queue where its batches take 10 ms."""
    options = ReplicaOptions(machine(**changes), 64, max_queue_wait_s=1e6, max_queue_tokens=10**9)
    return FleetOptions(1, options)


def test_one_worker_with_constant_batches_is_an_md1_queue() -> None:
    """The mean wait is that of Pollaczek and Khinchine: load times the service time over 2 (1 - load)."""
    load, service_s = 0.5, 0.01
    result = run(single(), load / service_s, 3_000 * service_s)
    mean_s = float(np.mean(result.latencies_s()))
    assert mean_s == pytest.approx(service_s * (1 + load / (2 * (1 - load))), rel=0.08)
    assert result.busy_share == pytest.approx(load, rel=0.05)


def test_each_wait_is_that_of_lindley_s_recursion() -> None:
    """A request waits for what was left to do when the one before it came, less the time in between."""
    result = run(single(), 90, 6.0)
    free_s, expected = 0.0, []
    for request in result.requests:
        free_s = max(free_s, request.arrived_s) + 0.01
        expected.append(free_s - request.arrived_s)
    assert result.latencies_s() == pytest.approx(expected)
    assert max(expected) > 0.05


def test_batches_take_longer_on_a_machine_that_was_idle() -> None:
    """By the whole share where it had nothing to do, and hardly where it is busy all the time; seconds add up."""
    seldom = run(single(idle_slowdown=0.5), 0.1, 100.0)
    assert np.median(seldom.latencies_s()) == pytest.approx(0.015, rel=0.02)
    assert seldom.batch_s == pytest.approx(0.015 * len(seldom.requests), rel=0.02)
    busy = run(single(idle_slowdown=0.5), 95, 60.0)
    assert busy.batch_s == pytest.approx(0.01 * len(busy.requests), rel=0.05)


def test_what_lies_between_batches_is_no_part_of_them() -> None:
    """A worker that takes 5 ms to begin a batch of 10 ms does 67 a second, and says that each took 10 ms."""
    result = run(single(dispatch_s=0.005), 0.1, 100.0)
    assert np.median(result.latencies_s()) == pytest.approx(0.015)
    assert [batch.run_s for batch in result.batches] == pytest.approx([0.01] * len(result.requests))
    assert {batch.tokens for batch in result.batches} == {64}
    busy = run(single(dispatch_s=0.005), 200, 6.0)
    assert len(busy.requests) / busy.duration_s == pytest.approx(1 / 0.015, rel=0.01)


def test_a_worker_that_wakes_takes_what_has_come_by_then() -> None:
    """Two texts that come within the time that it takes to wake a worker are one batch."""
    options = FleetOptions(1, ReplicaOptions(machine(dispatch_s=0.005), 256))
    texts = [SimulatedRequest(number, 0.004 * number, (64,)) for number in range(2)]
    result = simulate(options, texts)
    assert [batch.tokens for batch in result.batches] == [128]
    assert result.latencies_s() == pytest.approx([0.015, 0.011])


def test_littles_law_holds() -> None:
    """The mean number of requests in a server is their rate times their mean time in it."""
    options = FleetOptions(1, ReplicaOptions(real_machine(), 256))
    result = run(options, 250, 3.0, tokens=(60, 120))
    ended = [request.answered_s or 0.0 for request in result.requests]
    moments = np.linspace(0, result.duration_s, 20_000)
    begun = np.searchsorted([request.arrived_s for request in result.requests], moments)
    in_server = begun - np.searchsorted(np.sort(ended), moments)
    rate = len(ended) / result.duration_s
    assert in_server.mean() == pytest.approx(rate * np.mean(result.latencies_s()), rel=0.02)


def test_more_load_takes_longer() -> None:
    """Mean times rise with the load, whatever the machine."""
    means = [
        float(
            np.mean(
                run(FleetOptions(1, ReplicaOptions(real_machine(), 256)), rate, 1.5).latencies_s()
            )
        )
        for rate in (50, 200, 350)
    ]
    assert means == sorted(means)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(list(BalancerPolicy)), st.integers(2, 4))
def test_a_server_that_dies_loses_nothing(seed: int, policy: BalancerPolicy, replicas: int) -> None:
    """Every request is answered once though a server dies with some: the balancer sends them elsewhere."""
    options = FleetOptions(
        replicas,
        ReplicaOptions(real_machine(), 256),
        policy,
        seed,
        start_s=0.3,
        failures=[ReplicaFailure(0.2), ReplicaFailure(0.3)],
    )
    result = run(options, 150 * replicas, 0.6, seed=seed)
    assert result.refused == 0
    assert len(result.latencies_s()) == len(result.requests)
    assert [request.number for request in result.requests] == list(range(len(result.requests)))
    assert all(time_s > 0 for time_s in result.latencies_s())
    assert result.most_replicas == replicas


def test_requests_wait_for_a_server_that_starts() -> None:
    """While none is ready requests wait; they are refused only where none will ever be."""
    dying = single()
    for is_replaced, refused in ((True, False), (False, True)):
        options = FleetOptions(
            1, dying.replica, start_s=1.0, failures=[ReplicaFailure(0.5, is_replaced=is_replaced)]
        )
        result = run(options, 20, 2.0)
        assert bool(result.refused) is refused
        assert len(result.latencies_s()) + result.refused == len(result.requests)
        if not refused:
            assert max(result.latencies_s()) > 0.8


def test_what_is_refused_is_refused_by_the_engine_s_own_admission() -> None:
    """Beyond what a server can do its queue refuses, and what it takes waits no longer than it may."""
    options = FleetOptions(1, ReplicaOptions(machine(), 64, max_queue_wait_s=0.5))
    result = run(options, 200, 4.0)
    assert 0.3 < result.refused / len(result.requests) < 0.6
    assert max(result.latencies_s()) < 1.0


def test_the_same_seed_gives_the_same_figures() -> None:
    """Nothing is drawn from anything but the seed, retry times of refused calls included; another one differs."""

    def times(seed: int) -> list[float]:
        options = FleetOptions(
            2,
            ReplicaOptions(real_machine(), 256, max_queue_wait_s=0.05),
            BalancerPolicy.POWER_OF_TWO,
            seed,
            failures=[ReplicaFailure(0.1)],
        )
        random.random()
        return run(options, 900, 0.5, seed=7).latencies_s()

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_balancers_that_look_at_servers_do_better_than_chance() -> None:
    """At high load the fewest requests beat two draws, and these beat one."""
    p99_s = {
        policy: run(FleetOptions(6, ReplicaOptions(machine(), 64), policy), 510, 1.0).percentile_s(
            99
        )
        for policy in BalancerPolicy
    }
    assert p99_s[BalancerPolicy.LEAST_REQUEST] < p99_s[BalancerPolicy.POWER_OF_TWO]
    assert p99_s[BalancerPolicy.POWER_OF_TWO] < p99_s[BalancerPolicy.RANDOM]


def test_queries_pass_bulk_work() -> None:
    """The engine's own classes hold in the simulation: interactive requests hardly wait for bulk ones."""
    options = FleetOptions(1, ReplicaOptions(real_machine(), 256))
    bulk = Traffic(40, 3.0, (100, 100), 16, Priority.BULK)
    queries = Traffic(20, 3.0, (16, 16))
    both = sorted(
        [*bulk.requests(random.Random(1)), *queries.requests(random.Random(2))],
        key=lambda request: request.arrived_s,
    )
    requests = [
        SimulatedRequest(number, each.arrived_s, each.lengths, each.priority)
        for number, each in enumerate(both)
    ]
    result = simulate(options, requests)
    times = {
        priority: np.median(
            [
                r.answered_s - r.arrived_s
                for r in requests
                if r.answered_s and r.priority is priority
            ]
        )
        for priority in Priority
    }
    assert len(result.latencies_s()) == len(requests)
    assert times[Priority.INTERACTIVE] < 0.1 * times[Priority.BULK]


def test_an_autoscaler_starts_servers_while_work_waits_and_drains_them_after() -> None:
    """Queues beyond the target bring servers, which answer what waits; once it is calm they go, and nothing is lost."""
    autoscaler = Autoscaler(1, 6, target_queue_s=0.2, interval_s=1.0, calm_s=4.0)
    options = FleetOptions(
        1, ReplicaOptions(machine(), 64, max_queue_wait_s=1e6), start_s=1.0, autoscaler=autoscaler
    )
    busy = list(Traffic(200, 3.0, (64, 64)).requests(random.Random(3)))
    quiet = [
        SimulatedRequest(len(busy) + each.number, each.arrived_s, each.lengths)
        for each in Traffic(10, 15.0, (64, 64), begin_s=10.0).requests(random.Random(4))
    ]
    result = simulate(options, [*busy, *quiet])
    assert len(result.latencies_s()) == len(result.requests)
    assert 3 <= result.most_replicas <= 6
    assert result.replicas_over_time[-1][1] == 1
    assert result.percentile_s(99, from_s=10.0) < 0.05
