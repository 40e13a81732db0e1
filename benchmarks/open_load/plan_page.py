"""Writes the page of plans for a hundred, ten thousand and a million texts a second, from a machine's coefficients.

Beside the plans it compares ways to balance, lets a server die, and doubles a load under an autoscaler, all simulated.
"""

import argparse
import random
from pathlib import Path
from typing import Final

from nestvec.cli.tables import bytes_text
from nestvec.tools.planning.autoscaler import Autoscaler
from nestvec.tools.planning.balancers import BalancerPolicy
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.fleet import (
    FleetOptions,
    ReplicaFailure,
    Traffic,
    simulate,
)
from nestvec.tools.planning.replica import ReplicaOptions, SimulatedRequest
from nestvec.tools.planning.sizing import PlanGoal, ServerPlan, make_plan, saturation

from benchmarks.open_load.tables import rows
from benchmarks.run import result_file

LOADS: Final = (100.0, 10_000.0, 1_000_000.0)
TOKENS: Final = (60, 120)
P99_S: Final = 0.25
CORPUS_TEXTS_A_TEXT: Final = (
    100_000  # texts stored for each text a second, so that sizes grow together
)
REPLICAS: Final = 8
LOADED: Final = 0.8


def plans(machine: MachineCoefficients, price: float) -> list[str]:
    """Return the table of plans."""
    lines: list[list[object]] = [
        [
            "texts/s",
            "replicas (one to spare)",
            "`max_batch_tokens`",
            "cores busy",
            "p50 ms",
            "p99 ms",
            "memory",
            "corpus",
            "vectors, float32 / int8",
            "HNSW besides",
            "cost per million texts",
        ]
    ]
    for texts_per_s in LOADS:
        goal = PlanGoal(
            texts_per_s,
            TOKENS,
            P99_S,
            dimensions=machine.dimensions,
            corpus_vectors=int(texts_per_s * CORPUS_TEXTS_A_TEXT),
            price_per_hour=price,
        )
        plan = make_plan(goal, machine)
        lines.append(plan_row(texts_per_s, plan))
    return rows(lines)


def plan_row(texts_per_s: float, plan: ServerPlan) -> list[object]:
    """Return a plan's row."""
    fleet = plan.fleet
    return [
        f"{texts_per_s:,.0f}",
        f"{plan.servers:,}" + (f" in {plan.goal.cells} cells" if plan.goal.cells > 1 else ""),
        fleet.max_batch_tokens,
        f"{fleet.busy_share:.0%}",
        f"{1000 * fleet.p50_s:.0f}",
        f"{1000 * fleet.p99_s:.0f}",
        bytes_text(plan.servers * plan.server_bytes),
        f"{plan.goal.corpus_vectors:,}",
        f"{bytes_text(plan.vectors_bytes)} / {bytes_text(plan.vectors_bytes / 4)}",
        bytes_text(plan.hnsw_bytes),
        f"{plan.cost_per_million_texts:.2f}",
    ]


def balancing(options: ReplicaOptions, rate: float) -> list[str]:
    """Return the table of ways to balance."""
    lines: list[list[object]] = [["policy", "p50 ms", "p99 ms"]]
    for policy in BalancerPolicy:
        traffic = Traffic(rate, 8_000 / rate, TOKENS)
        fleet = FleetOptions(REPLICAS, options, policy)
        result = simulate(fleet, traffic.requests(random.Random(1)))
        cells = [f"{1000 * result.percentile_s(share):.0f}" for share in (50, 99)]
        lines.append([policy.value, *cells])
    return rows(lines)


def failing(options: ReplicaOptions, rate: float, start_s: float) -> list[str]:
    """Return what a server's death does."""
    fleet = FleetOptions(REPLICAS, options, start_s=start_s, failures=[ReplicaFailure(10.0)])
    traffic = Traffic(rate, 10 + 3 * start_s, TOKENS)
    result = simulate(fleet, traffic.requests(random.Random(2)))
    spans = [("before", 2.0, 10.0), ("until another is ready", 10.0, 10 + start_s)]
    spans.append(("after", 10 + start_s, 1e9))
    lines: list[list[object]] = [["while", "p50 ms", "p99 ms"]]
    for name, from_s, to_s in spans:
        cells = [f"{1000 * result.percentile_s(share, from_s, to_s):.0f}" for share in (50, 99)]
        lines.append([name, *cells])
    lost = len(result.requests) - len(result.latencies_s()) - result.refused
    said = f"{len(result.requests):,} requests: {lost} lost, {result.refused} refused, {result.retries} sent again."
    return [*rows(lines), "", said]


def scaling(options: ReplicaOptions, capacity: float, start_s: float) -> list[str]:
    """Return what an autoscaler does when the load grows threefold."""
    scaler = Autoscaler(2, 16, target_queue_s=0.5)
    fleet = FleetOptions(2, options, start_s=start_s, autoscaler=scaler)
    chooser = random.Random(3)
    quiet = list(Traffic(1.2 * capacity, 30.0, TOKENS).requests(chooser))
    busy = Traffic(3.6 * capacity, 150.0, TOKENS, begin_s=30.0).requests(chooser)
    requests = [
        SimulatedRequest(number, each.arrived_s, each.lengths)
        for number, each in enumerate([*quiet, *busy])
    ]
    result = simulate(fleet, requests)
    lines: list[list[object]] = [["seconds after", "replicas", "p50 ms", "p99 ms"]]
    for from_s in (-30, 0, 30, 60, 90, 120):
        to_s = from_s + 30
        there = [count for time_s, count in result.replicas_over_time if time_s <= 30 + to_s][-1]
        cells = [
            f"{1000 * result.percentile_s(share, 30 + from_s, 30 + to_s):,.0f}"
            for share in (50, 99)
        ]
        lines.append([f"{from_s} to {to_s}", there, *cells])
    said = (
        f"{len(requests):,} requests, {result.refused:,} refused (429, twice: the balancer tries two servers); "
        f"most replicas {result.most_replicas}."
    )
    return [*rows(lines), "", said]


def page(machine: MachineCoefficients, price: float) -> str:
    """Return the page."""
    options = ReplicaOptions(machine, machine.max_batch_tokens)
    capacity = saturation(PlanGoal(1.0, TOKENS, 1.0), options)
    rate = LOADED * REPLICAS * capacity
    start_s = max(machine.start_s, 10.0)
    batch, front = machine.batch, machine.front
    return "\n".join(
        [
            f"# Plans for {machine.model}, {machine.precision}, {machine.measured_on}",
            "",
            f"{machine.machine}. Written by `python -m benchmarks.open_load.plan_page`; all figures but the "
            f"coefficients are simulated. Texts of {TOKENS[0]} to {TOKENS[1]} tokens, one a request; a machine costs "
            f"{price:g} an hour; 99 of 100 answers "
            f"within {1000 * P99_S:.0f} ms; {CORPUS_TEXTS_A_TEXT:,} texts stored for each text a second.",
            "",
            f"Measured here: a batch takes {1000 * batch.fixed_s:.2f} ms, {1e6 * batch.token_s:.0f} µs a token and "
            f"{1e6 * batch.area_s:.0f} µs a token equivalent of attention, {machine.slowdown:.2f} times as long while "
            f"all {machine.workers} workers are busy; a request {1000 * front.request_s:.2f} ms and "
            f"{1e6 * front.text_s:.0f} µs a text beside it. One replica answers {capacity:.0f} such requests a second "
            "at most.",
            "",
            *plans(machine, price),
            "",
            f"## Ways to balance, {REPLICAS} replicas at {LOADED:.0%}",
            "",
            *balancing(options, rate),
            "",
            f"## A replica of {REPLICAS} dies at {LOADED:.0%}, another is ready after {start_s:.0f} s",
            "",
            *failing(options, rate, start_s),
            "",
            "## The load of two replicas grows from 60% to 180% of them",
            "",
            f"An autoscaler aims at 0.5 s of queue a replica, looks every 15 s; a replica starts in {start_s:.0f} s.",
            "",
            *scaling(options, capacity, start_s),
            "",
            "## The coefficients",
            "",
            f"```json\n{machine.json_text()}```",
            "",
        ]
    )


def main() -> None:
    """Parse the arguments and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coefficients", type=Path, required=True)
    parser.add_argument("--price-per-hour", type=float, default=0.1)
    parser.add_argument("--out", type=Path, help="default: a file of benchmarks/results/")
    arguments = parser.parse_args()
    text = page(MachineCoefficients.read(arguments.coefficients), arguments.price_per_hour)
    (arguments.out or result_file("-plan")).write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
