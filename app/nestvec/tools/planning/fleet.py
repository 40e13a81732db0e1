"""Simulates servers behind a balancer, with failures and an autoscaler; the same seed gives the same figures."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from nestvec.engine.types import Priority
from nestvec.tools.planning.autoscaler import Autoscaler
from nestvec.tools.planning.balancers import Balancer, BalancerPolicy
from nestvec.tools.planning.replica import (
    Replica,
    ReplicaOptions,
    SimulatedBatch,
    SimulatedRequest,
)
from nestvec.tools.planning.virtual_clock import VirtualClock

# A balancer sends a request elsewhere so many times where a server refuses it.
REFUSAL_RETRIES: Final = 1
NO_SERVER_WAIT_S: Final = 0.25  # while no server is ready


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests at random times (Poisson).

    Attributes:
        requests_per_s: How many on average.
        duration_s: For how long.
        tokens: Fewest and most tokens of a text, all between equally likely.
        texts_per_request: Texts of each request.
        priority: Their class.
        begin_s: When the first may come.
    """

    requests_per_s: float
    duration_s: float
    tokens: tuple[int, int]
    texts_per_request: int = 1
    priority: Priority = Priority.INTERACTIVE
    begin_s: float = 0.0

    def requests(self, chooser: random.Random) -> Iterator[SimulatedRequest]:
        """Yield the requests in order of their times."""
        low, high = self.tokens
        time_s, number = self.begin_s, 0
        while True:
            time_s += chooser.expovariate(self.requests_per_s)
            if time_s >= self.begin_s + self.duration_s:
                return
            lengths = tuple(chooser.randint(low, high) for _ in range(self.texts_per_request))
            yield SimulatedRequest(number, time_s, lengths, self.priority)
            number += 1


@dataclass(frozen=True, slots=True)
class ReplicaFailure:
    """A server dies.

    Attributes:
        at_s: When.
        is_replaced: Whether another is started at once.
    """

    at_s: float
    is_replaced: bool = True


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What is simulated.

    Attributes:
        replicas: Servers at the start, all ready.
        replica: How each of them runs.
        policy: How the balancer chooses.
        seed: Of all that is drawn at random.
        start_s: How long a further server takes until it is ready.
        failures: The servers that die.
        autoscaler: Starts and stops servers; None: their number stays.
    """

    replicas: int
    replica: ReplicaOptions
    policy: BalancerPolicy = BalancerPolicy.LEAST_REQUEST
    seed: int = 0
    start_s: float = 30.0
    failures: Sequence[ReplicaFailure] = ()
    autoscaler: Autoscaler | None = None


@dataclass(slots=True)
class FleetResult:
    """What came of a simulation.

    Attributes:
        requests: All of them, in order of arrival.
        duration_s: Until the last was answered.
        busy_share: Share of the cores that were busy, of all servers that were ever there.
        batches: The batches that their workers ran, server by server.
        retries: How often a request was sent to another server.
        most_replicas: Most servers that were there at once.
        replica_s: Seconds of all servers that were there, added up.
        replicas_over_time: Time and number of servers, at each change.
    """

    requests: list[SimulatedRequest]
    duration_s: float
    busy_share: float
    batches: list[SimulatedBatch]
    retries: int
    most_replicas: int
    replica_s: float
    replicas_over_time: list[tuple[float, int]]

    def latencies_s(self, from_s: float = 0.0, to_s: float = float("inf")) -> list[float]:
        """Return how long each answered request took that came within some time."""
        return [
            request.answered_s - request.arrived_s
            for request in self.requests
            if request.answered_s is not None and from_s <= request.arrived_s < to_s
        ]

    def percentile_s(self, share: float, from_s: float = 0.0, to_s: float = float("inf")) -> float:
        """Return a percentile (0 to 100) of the latencies; NaN where nothing was answered."""
        latencies = self.latencies_s(from_s, to_s)
        return float(np.percentile(latencies, share)) if latencies else float("nan")

    @property
    def batch_s(self) -> float:
        """Seconds that workers ran batches, added up."""
        return sum(batch.run_s for batch in self.batches)

    @property
    def refused(self) -> int:
        """Number of requests that were refused in the end."""
        return sum(request.was_refused for request in self.requests)


@dataclass(slots=True)
class _Fleet:
    """A simulation under way."""

    options: FleetOptions
    clock: VirtualClock = field(default_factory=VirtualClock)
    replicas: list[Replica] = field(default_factory=list)
    requests: list[SimulatedRequest] = field(default_factory=list)
    retries: int = 0
    is_all_sent: bool = False
    answered_s: float = 0.0
    starting: int = 0
    sizes: list[tuple[float, int]] = field(default_factory=list)
    chooser: random.Random = field(init=False)
    balancer: Balancer = field(init=False)

    def __post_init__(self) -> None:
        self.chooser = random.Random(self.options.seed)  # noqa: S311 - a simulation, no secret
        self.balancer = Balancer(self.options.policy, self.chooser)

    def ready(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.is_ready]

    def start_replica(self) -> None:
        """Add a server that is ready now."""
        self.replicas.append(
            Replica(self.clock, self.options.replica, self.chooser, self.answered, self.refused)
        )
        self.note_size()

    def note_size(self) -> None:
        self.sizes.append((self.clock.now_s, sum(r.is_alive for r in self.replicas)))

    def start_later(self) -> None:
        """Begin to start a server."""
        self.starting += 1

        def is_up() -> None:
            self.starting -= 1
            self.start_replica()

        self.clock.after(self.options.start_s, is_up)

    def send(self, request: SimulatedRequest) -> None:
        """Give a request to a server, as soon as one is ready; where none will ever be, it is refused."""
        ready = self.ready()
        if not ready:
            if self.starting or self.options.autoscaler is not None:
                self.clock.after(NO_SERVER_WAIT_S, lambda: self.send(request))
            else:
                request.was_refused = True
            return
        request.tries += 1
        self.balancer.choose(ready).submit(request)

    def answered(self, request: SimulatedRequest) -> None:
        self.answered_s = request.answered_s or 0.0

    def refused(self, request: SimulatedRequest) -> None:
        if request.tries <= REFUSAL_RETRIES:
            self.retries += 1
            self.send(request)
            return
        request.was_refused = True

    def kill_one(self, failure: ReplicaFailure) -> None:
        """Let a server die: what it had is sent to others."""
        ready = self.ready()
        if not ready:
            return
        victim = self.chooser.choice(ready)
        lost = victim.die()
        self.note_size()
        if failure.is_replaced:
            self.start_later()
        for request in lost:
            self.retries += 1
            self.send(request)

    def scale(self, autoscaler: Autoscaler) -> None:
        """Start or drain servers as the autoscaler wants it."""
        ready = self.ready()
        queue_s = sum(replica.queue_s for replica in ready)
        there = len(ready) + self.starting
        wanted = autoscaler.wanted(self.clock.now_s, there, len(ready), queue_s)
        for _ in range(wanted - there):
            self.start_later()
        for replica in ready[wanted:] if not self.starting else ():
            replica.is_ready = False
            self.leave_when_idle(replica)
        if not self.is_all_sent:
            self.clock.after(autoscaler.interval_s, lambda: self.scale(autoscaler))

    def leave_when_idle(self, replica: Replica) -> None:
        """End a drained server once it has answered what it has."""
        if replica.in_flight:
            self.clock.after(NO_SERVER_WAIT_S, lambda: self.leave_when_idle(replica))
            return
        replica.is_alive = False
        self.note_size()

    def arrive(self, source: Iterator[SimulatedRequest]) -> None:
        """Plan the next arrival."""
        request = next(source, None)
        if request is None:
            self.is_all_sent = True
            return
        self.requests.append(request)

        def come() -> None:
            self.send(request)
            self.arrive(source)

        self.clock.at(request.arrived_s, come)


def simulate(options: FleetOptions, requests: Iterable[SimulatedRequest]) -> FleetResult:
    """Run requests through servers until all are answered or refused.

    Args:
        options: What is simulated.
        requests: In order of arrival; each is used once.

    Raises:
        ValueError: There are no servers.
    """
    if options.replicas < 1:
        raise ValueError("at least one replica")
    fleet = _Fleet(options)
    for _ in range(options.replicas):
        fleet.start_replica()
    for failure in options.failures:
        fleet.clock.at(failure.at_s, lambda failure=failure: fleet.kill_one(failure))  # type: ignore[misc]
    if options.autoscaler is not None:
        autoscaler = options.autoscaler
        fleet.clock.after(autoscaler.interval_s, lambda: fleet.scale(autoscaler))
    fleet.arrive(iter(requests))
    fleet.clock.run()
    return _result(fleet, options)


def _result(fleet: _Fleet, options: FleetOptions) -> FleetResult:
    """Add up what happened."""
    until_s = max(fleet.answered_s, fleet.requests[-1].arrived_s if fleet.requests else 0.0)
    ends_s = [time_s for time_s, _ in fleet.sizes[1:]] + [until_s]
    replica_s = sum(
        count * max(0.0, min(end_s, until_s) - min(begin_s, until_s))
        for (begin_s, count), end_s in zip(fleet.sizes, ends_s, strict=True)
    )
    cores = options.replica.coefficients.cores
    busy_core_s = sum(replica.cores.busy_core_s for replica in fleet.replicas)
    return FleetResult(
        fleet.requests,
        until_s,
        busy_core_s / (replica_s * cores) if replica_s else 0.0,
        [batch for replica in fleet.replicas for batch in replica.batches],
        fleet.retries,
        max(count for _, count in fleet.sizes),
        replica_s,
        fleet.sizes,
    )
