"""How long batches run on a machine that is idle at times, told from open loads: pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.fleet import FleetOptions, simulate
from nestvec.tools.planning.halving import halved
from nestvec.tools.planning.replica import ReplicaOptions, SimulatedRequest

MAX_IDLE_SLOWDOWN: Final = 4.0
STEPS: Final = 10  # halvings of that range: to some thousandths
# The slow-down of busy and of idle machines are fitted by turns, as each depends on the other a little.
FITTING_ROUNDS: Final = 2


@dataclass(frozen=True, slots=True)
class OpenLoad:
    """Requests at known times, and how long a server's workers ran batches for them.

    Attributes:
        arrivals_s: When each request was due, in seconds from the start.
        lengths: Tokens of the texts of each.
        client_s: CPU seconds of the load generator a request.
        batch_s: Seconds that the server's workers ran batches, added up.
    """

    arrivals_s: Sequence[float]
    lengths: Sequence[tuple[int, ...]]
    client_s: float
    batch_s: float


def fit_idle_slowdown(options: ReplicaOptions, loads: Sequence[OpenLoad]) -> MachineCoefficients:
    """Return the coefficients whose batches run for as long as was measured of a server that is idle at times.

    Seconds of batches tell more than latencies do: these grow with queues, and so with every chance of the machine.

    Args:
        options: How it runs; its own idle slow-down is of no account.
        loads: What was measured.
    """
    machine, measured_s = options.coefficients, sum(load.batch_s for load in loads)

    def with_slowdown(idle_slowdown: float) -> MachineCoefficients:
        return machine.model_copy(update={"idle_slowdown": idle_slowdown})

    def is_too_low(idle_slowdown: float) -> bool:
        tried = replace(options, coefficients=with_slowdown(idle_slowdown))
        return sum(_batch_s(tried, load) for load in loads) < measured_s

    return with_slowdown(halved(0.0, MAX_IDLE_SLOWDOWN, is_too_low, STEPS))


def _batch_s(options: ReplicaOptions, load: OpenLoad) -> float:
    """Return the seconds that simulated workers run batches for the requests of a load."""
    half_s = load.client_s / 2
    server = replace(options, client_send_s=half_s, client_receive_s=half_s)
    return simulate(FleetOptions(1, server), requests_at(load.arrivals_s, load.lengths)).batch_s


def requests_at(
    arrivals_s: Iterable[float], lengths: Iterable[tuple[int, ...]]
) -> list[SimulatedRequest]:
    """Return requests at these times, one for the lengths of each one's texts."""
    return [
        SimulatedRequest(number, time_s, texts)
        for number, (time_s, texts) in enumerate(zip(arrivals_s, lengths, strict=True))
    ]
