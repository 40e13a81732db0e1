"""How much a simulated server answers where callers always have another request ready: pure."""

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.halving import halved
from nestvec.tools.planning.replica import Replica, ReplicaOptions, SimulatedRequest
from nestvec.tools.planning.virtual_clock import VirtualClock

WARM_UP: Final = 0.1  # share of the requests that is not counted: nothing is learned yet
DOUBLINGS: Final = (-1.0, 4.0)  # slow-downs of a half to sixteen
WAKES: Final = 2  # of a request that is alone: it comes, and its vectors are there
STEPS: Final = 12  # halvings of that range: to a thousandth
BUSY_ROUNDS: Final = 2  # how long batches run and what lies between them depend on each other


@dataclass(frozen=True, slots=True)
class Saturation:
    """What a server does where callers always have another request ready.

    Attributes:
        requests_per_s: Requests a second that it answers.
        front_s: Core seconds a request of the thread that speaks HTTP.
        idle_s: Seconds that its workers ran no batch, a request, from the first request to the last answer.
        batches: Batches a request.
    """

    requests_per_s: float
    front_s: float
    idle_s: float
    batches: float


@dataclass(frozen=True, slots=True)
class BusyLoad:
    """What a server did where so many requests were always under way.

    Attributes:
        lengths: Tokens of the texts of each request.
        connections: How many were under way.
        requests_per_s: Requests a second that it answered; see `steady_requests_per_s`.
        idle_s: Seconds that its workers ran no batch, a request, from the first request to the last answer.
    """

    lengths: Sequence[tuple[int, ...]]
    connections: int
    requests_per_s: float
    idle_s: float


def steady_requests_per_s(answered_s: Sequence[float], connections: int) -> float:
    """Return how many requests a second were answered while a number of connections was always busy.

    The first tenth is left out, as nothing has been learned yet, and what was under way at the end, as connections
    fall idle one by one then.

    Args:
        answered_s: When each request was answered, in order.
        connections: How many were under way.

    Raises:
        ValueError: There are too few requests to tell.
    """
    first, last = int(WARM_UP * len(answered_s)), len(answered_s) - connections - 1
    if last <= first:
        raise ValueError("more requests than connections are needed to see what a server can do")
    return (last - first) / (answered_s[last] - answered_s[first])


def saturated_requests_per_s(
    options: ReplicaOptions,
    lengths: Iterable[tuple[int, ...]],
    connections: int,
    seed: int = 0,
) -> float:
    """Return how many requests a second a server answers where so many are always under way; see `saturate`."""
    return saturate(options, lengths, connections, seed).requests_per_s


def saturate(
    options: ReplicaOptions,
    lengths: Iterable[tuple[int, ...]],
    connections: int,
    seed: int = 0,
) -> Saturation:
    """Simulate a server where so many requests are always under way.

    Args:
        options: How it runs.
        lengths: Tokens of the texts of each request.
        connections: Requests that are always under way.
        seed: Of all that is drawn at random.

    Raises:
        ValueError: There are too few requests to tell.
    """
    clock, source = VirtualClock(), iter(lengths)
    numbers, ended_s = itertools.count(), []

    def send_next() -> None:
        texts = next(source, None)
        if texts is not None:
            replica.submit(SimulatedRequest(next(numbers), clock.now_s, texts))

    def note(_: SimulatedRequest) -> None:
        ended_s.append(clock.now_s)
        send_next()

    def give_up(_: SimulatedRequest) -> None:
        send_next()

    replica = Replica(clock, options, random.Random(seed), note, give_up)  # noqa: S311 - a simulation
    for _ in range(connections):
        send_next()
    clock.run()
    requests_per_s = steady_requests_per_s(ended_s, connections)
    each = 1 / len(ended_s)
    return Saturation(
        requests_per_s,
        replica.front.work_s * each,
        options.coefficients.workers * ended_s[-1] * each - replica.batch_s * each,
        len(replica.batches) * each,
    )


def fit_busy(options: ReplicaOptions, loads: Sequence[BusyLoad]) -> MachineCoefficients:
    """Return the coefficients of a server that does what was measured of one whose workers are all busy.

    The time of workers that no batch took lies between batches. How much the cores slow each other down is what makes
    the server answer as much as it did.

    Args:
        options: How it runs; its own slow-down and time between batches are of no account.
        loads: What was measured.
    """
    machine = options.coefficients.model_copy(update={"dispatch_s": 0.0})
    # However slow it is made, nobody is refused: what counts is how much it does.
    endless = replace(options, max_queue_wait_s=math.inf)
    for _round in range(BUSY_ROUNDS):
        machine = _with_slowdown(replace(endless, coefficients=machine), loads)
        idle_s, batches = 0.0, 0.0
        for load in loads:
            fitted = replace(endless, coefficients=machine)
            simulated = saturate(fitted, load.lengths, load.connections)
            idle_s += load.idle_s - simulated.idle_s
            batches += simulated.batches
        dispatch_s = max(0.0, machine.dispatch_s + idle_s / batches)
        machine = machine.model_copy(update={"dispatch_s": dispatch_s})
    return _with_slowdown(replace(endless, coefficients=machine), loads)


def _with_slowdown(options: ReplicaOptions, loads: Sequence[BusyLoad]) -> MachineCoefficients:
    """Return the coefficients of a server that answers as many requests as were measured."""
    machine, measured = options.coefficients, sum(load.requests_per_s for load in loads)

    def slower(doublings: float) -> MachineCoefficients:
        return machine.model_copy(update={"slowdown": 2.0**doublings})

    def is_too_low(doublings: float) -> bool:
        tried = replace(options, coefficients=slower(doublings))
        return measured < sum(
            saturated_requests_per_s(tried, load.lengths, load.connections) for load in loads
        )

    return slower(halved(*DOUBLINGS, is_too_low, STEPS))


def fit_wake(
    options: ReplicaOptions, lengths: list[tuple[int, ...]], connections: int, front_s: float
) -> MachineCoefficients:
    """Return the coefficients whose thread that speaks HTTP takes what was measured of a busy server.

    What it takes a request was measured where one follows the other: it wakes up for each, and again for its answer.
    Of many that are under way it wakes up for several at once, which tells how much of it is waking up.

    Args:
        options: How it runs; its coefficients say what requests take one after the other, waking up included.
        lengths: Tokens of the texts of each request.
        connections: Requests that were always under way.
        front_s: Core seconds a request of that thread, measured then.
    """
    machine = options.coefficients

    def split(wake_s: float) -> MachineCoefficients:
        request_s = max(0.0, machine.front.request_s - WAKES * wake_s)
        front = machine.front.model_copy(update={"request_s": request_s, "wake_s": wake_s})
        return machine.model_copy(update={"front": front})

    def is_too_low(wake_s: float) -> bool:
        tried = replace(options, coefficients=split(wake_s), max_queue_wait_s=math.inf)
        return saturate(tried, lengths, connections).front_s > front_s

    return split(halved(0.0, machine.front.request_s / WAKES, is_too_low, STEPS))


def fit_wait(
    options: ReplicaOptions, lengths: list[tuple[int, ...]], request_s: float
) -> MachineCoefficients:
    """Return the coefficients with the wait on no core that makes requests one after the other take what was measured.

    Args:
        options: How it runs; its own wait is of no account.
        lengths: Tokens of the texts of each request.
        request_s: Mean seconds from one request to the next.
    """
    machine = options.coefficients

    def waiting(wait_s: float) -> MachineCoefficients:
        front = machine.front.model_copy(update={"wait_s": wait_s})
        return machine.model_copy(update={"front": front})

    at_once = replace(options, coefficients=waiting(0.0))
    simulated_s = 1 / saturated_requests_per_s(at_once, lengths, 1)
    return waiting(max(0.0, request_s - simulated_s))
