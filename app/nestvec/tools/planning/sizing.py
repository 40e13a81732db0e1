"""From a load and a machine's coefficients to a number of servers, their settings, memory, storage and cost."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from nestvec.engine.dtypes import OutputDtype
from nestvec.tools.planning.balancers import BalancerPolicy
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.fleet import FleetOptions, FleetResult, Traffic, simulate
from nestvec.tools.planning.replica import ReplicaOptions
from nestvec.tools.planning.saturation import saturated_requests_per_s

# More texts a second are simulated as so many equal groups of servers, each behind a balancer of its own.
MAX_CELL_TEXTS_PER_S: Final = 10_000.0
SIMULATED_REQUESTS: Final = 6_000
MIN_SIMULATED_S: Final = 0.5
WARM_UP: Final = 0.2  # share of a simulation that does not count: servers have learned nothing yet
MAX_LOAD: Final = (
    0.95  # of what servers can do: beyond it waits grow without end at the least disturbance
)
MIN_LOAD: Final = 0.05  # more servers than this makes sense of do not help
BUDGETS: Final = (128, 256, 512, 1024)
SATURATION_REQUESTS: Final = 400
CONNECTIONS_A_WORKER: Final = 8
# Links of an HNSW index with 32 neighbours: twice as many on the lowest layer, four bytes each, a little more above.
HNSW_BYTES: Final = 32 * 2 * 4 + 16
SECONDS_AN_HOUR: Final = 3600.0
MILLION: Final = 1e6


@dataclass(frozen=True, slots=True)
class PlanGoal:
    """What is asked of the servers.

    Attributes:
        requests_per_s: Requests a second.
        tokens: Fewest and most tokens of a text.
        texts_per_request: Texts of a request.
        p99_s: In how many seconds 99 of 100 requests are to be answered.
        dimensions: Dimensions of the vectors that are stored.
        dtype: Their dtype.
        corpus_vectors: How many are stored.
        spare_replicas: Servers more than the load needs, which may fail or restart.
        price_per_hour: What an hour of a machine costs, in any currency; None: unknown.
        policy: How the balancer chooses.
        seed: Of the simulations.
    """

    requests_per_s: float
    tokens: tuple[int, int]
    p99_s: float
    texts_per_request: int = 1
    dimensions: int = 0
    dtype: OutputDtype = OutputDtype.FLOAT32
    corpus_vectors: int = 0
    spare_replicas: int = 1
    price_per_hour: float | None = None
    policy: BalancerPolicy = BalancerPolicy.LEAST_REQUEST
    seed: int = 0

    @property
    def texts_per_s(self) -> float:
        """Texts a second."""
        return self.requests_per_s * self.texts_per_request

    @property
    def cells(self) -> int:
        """Equal groups of servers that it is simulated as."""
        return max(1, math.ceil(self.texts_per_s / MAX_CELL_TEXTS_PER_S))


@dataclass(frozen=True, slots=True)
class SizedFleet:
    """Servers that reach a goal.

    Attributes:
        replicas: How many, spare ones not counted.
        max_batch_tokens: Budget of their batches.
        capacity_requests_per_s: Requests a second that one of them answers at most.
        p50_s: The median of the simulated answers' times.
        p99_s: Their 99th percentile.
        busy_share: Share of the cores that is busy.
    """

    replicas: int
    max_batch_tokens: int
    capacity_requests_per_s: float
    p50_s: float
    p99_s: float
    busy_share: float


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """A plan.

    Attributes:
        goal: What is asked for.
        fleet: The servers that reach it.
        servers: Their number, spare ones counted.
        server_bytes: Memory of one of them.
        vectors_bytes: What the corpus's vectors take.
        hnsw_bytes: What the links of an HNSW index over them take besides.
        corpus_s: Seconds in which these servers embed the corpus, if they do nothing else.
        cost_per_million_texts: At the load that is asked for; None where no price is known.
        least_cost_per_million_texts: Where they are always as busy as they can be.
    """

    goal: PlanGoal
    fleet: SizedFleet
    servers: int
    server_bytes: int
    vectors_bytes: int
    hnsw_bytes: int
    corpus_s: float
    cost_per_million_texts: float | None
    least_cost_per_million_texts: float | None


def make_plan(goal: PlanGoal, machine: MachineCoefficients) -> ServerPlan:
    """Find the servers that a load needs.

    Args:
        goal: What is asked for.
        machine: What one machine costs.

    Raises:
        ValueError: No number of such servers reaches the goal, or the coefficients do not cover it.
    """
    if goal.tokens[1] > machine.max_tokens:
        raise ValueError(
            f"tokens: {machine.model} takes at most {machine.max_tokens} tokens of a text: plan with the pieces that "
            "longer texts are cut into, or with coefficients of a model that takes more"
        )
    if goal.dimensions > machine.dimensions:
        raise ValueError(
            f"dims: {machine.model} gives {machine.dimensions} dimensions at most, not {goal.dimensions}"
        )
    fleet = size_fleet(goal, machine)
    servers = fleet.replicas + goal.spare_replicas
    per_item = goal.dtype.values_per_item
    vector_bytes = -(-goal.dimensions // per_item) * goal.dtype.storage_dtype.itemsize
    capacity = fleet.capacity_requests_per_s * goal.texts_per_request
    price_s = None if goal.price_per_hour is None else goal.price_per_hour / SECONDS_AN_HOUR
    return ServerPlan(
        goal,
        fleet,
        servers,
        machine.server_bytes,
        goal.corpus_vectors * vector_bytes,
        goal.corpus_vectors * HNSW_BYTES,
        goal.corpus_vectors / (capacity * servers),
        None if price_s is None else MILLION * price_s * servers / goal.texts_per_s,
        None if price_s is None else MILLION * price_s / capacity,
    )


def size_fleet(goal: PlanGoal, machine: MachineCoefficients) -> SizedFleet:
    """Find the fewest servers and, among budgets that need as few, the one that answers soonest.

    Raises:
        ValueError: However many there are, answers take too long.
    """
    best: SizedFleet | None = None
    soonest_s = math.inf
    for budget in _budgets(machine):
        options = ReplicaOptions(machine, budget)
        capacity = saturation(goal, options)
        low = max(1, math.ceil(goal.requests_per_s / goal.cells / (MAX_LOAD * capacity)))
        high = max(low, math.ceil(goal.requests_per_s / goal.cells / (MIN_LOAD * capacity)))
        if best is not None and low * goal.cells > best.replicas:
            continue
        results: dict[int, FleetResult] = {}

        def reaches(replicas: int) -> bool:
            result = results[replicas] = simulate_cell(goal, options, replicas)  # noqa: B023 - used within the turn
            return not result.refused and _percentile_s(result, 99) <= goal.p99_s

        found = _least(reaches, low, high)
        soonest_s = min(soonest_s, *(_percentile_s(result, 99) for result in results.values()))
        if found is None:
            continue
        result = results[found]
        sized = SizedFleet(
            found * goal.cells,
            budget,
            capacity,
            _percentile_s(result, 50),
            _percentile_s(result, 99),
            result.busy_share,
        )
        if best is None or (sized.replicas, sized.p99_s) < (best.replicas, best.p99_s):
            best = sized
    if best is None:
        raise ValueError(
            f"p99: 99 of 100 requests take {1000 * soonest_s:.0f} ms here however many servers there are, and "
            f"{1000 * goal.p99_s:.0f} ms are asked for: send fewer or shorter texts a request, allow more time, or "
            "measure a faster machine"
        )
    return best


def saturation(goal: PlanGoal, options: ReplicaOptions) -> float:
    """Return how many requests of a goal's kind a second one server answers at most."""
    chooser = random.Random(goal.seed)  # noqa: S311 - a simulation, no secret
    lengths = [
        tuple(chooser.randint(*goal.tokens) for _ in range(goal.texts_per_request))
        for _ in range(SATURATION_REQUESTS)
    ]
    connections = CONNECTIONS_A_WORKER * options.coefficients.workers
    unbounded = replace(options, max_queue_wait_s=math.inf)
    count = max(SATURATION_REQUESTS, 4 * connections)
    repeated = [lengths[number % len(lengths)] for number in range(count)]
    return saturated_requests_per_s(unbounded, repeated, connections, goal.seed)


def simulate_cell(goal: PlanGoal, options: ReplicaOptions, replicas: int) -> FleetResult:
    """Simulate one cell of a goal's load with so many servers."""
    rate = goal.requests_per_s / goal.cells
    duration_s = max(MIN_SIMULATED_S, SIMULATED_REQUESTS / rate)
    traffic = Traffic(rate, duration_s, goal.tokens, goal.texts_per_request)
    chooser = random.Random(goal.seed)  # noqa: S311 - a simulation, no secret
    fleet = FleetOptions(replicas, options, goal.policy, goal.seed)
    return simulate(fleet, traffic.requests(chooser))


def _percentile_s(result: FleetResult, share: float) -> float:
    """Return a percentile of what came after the warm-up."""
    last_s = result.requests[-1].arrived_s if result.requests else 0.0
    return result.percentile_s(share, from_s=WARM_UP * last_s)


def _budgets(machine: MachineCoefficients) -> list[int]:
    """Return the budgets to choose from: none larger than what was measured; the server's own first."""
    others = [n for n in BUDGETS if n <= machine.largest_batch_tokens]
    return list(dict.fromkeys([machine.max_batch_tokens, *others]))


def _least(reaches: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the least number within bounds that reaches a goal, if all above it do too; None where none does."""
    if reaches(low):
        return low
    if low >= high or not reaches(high):
        return None
    # What is needed mostly lies near the least.
    step, failed, number = 1, low, min(high, low + 1)
    while not reaches(number):
        failed, number = number, min(high, number + step)
        step *= 2
    while number - failed > 1:
        middle = (number + failed) // 2
        if reaches(middle):
            number = middle
        else:
            failed = middle
    return number
