"""How much a simulated server answers where callers always have another request ready: pure."""

import itertools
import math
import random
from collections.abc import Iterable
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


@dataclass(frozen=True, slots=True)
class Saturation:
    """What a server does where callers always have another request ready.

    Attributes:
        requests_per_s: Requests a second that it answers.
        front_s: Core seconds a request of the thread that speaks HTTP.
    """

    requests_per_s: float
    front_s: float


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
    # At the end connections fall idle: what is counted ends before.
    first, last = int(WARM_UP * len(ended_s)), len(ended_s) - connections - 1
    if last <= first:
        raise ValueError("more requests than connections are needed to see what a server can do")
    requests_per_s = (last - first) / (ended_s[last] - ended_s[first])
    return Saturation(requests_per_s, replica.front.work_s / len(ended_s))


def fit_slowdown(
    options: ReplicaOptions,
    lengths: list[tuple[int, ...]],
    connections: int,
    requests_per_s: float,
) -> MachineCoefficients:
    """Return the coefficients with the slow-down while all workers are busy that makes a server do what was measured.

    Args:
        options: How it runs; its own slow-down is of no account.
        lengths: Tokens of the texts of each request.
        connections: Requests that were always under way.
        requests_per_s: How many were answered a second.
    """
    machine = options.coefficients

    def slower(doublings: float) -> MachineCoefficients:
        return machine.model_copy(update={"slowdown": 2.0**doublings})

    def is_too_low(doublings: float) -> bool:
        # However slow it is made, nobody is refused: what counts is how much it does.
        tried = replace(options, coefficients=slower(doublings), max_queue_wait_s=math.inf)
        return saturated_requests_per_s(tried, lengths, connections) > requests_per_s

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
