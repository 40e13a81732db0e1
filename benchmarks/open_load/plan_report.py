"""What the plan's simulation gives for the requests of measured runs, and by how much it is off."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from nestvec.assembly.package import prepare_model
from nestvec.config.loading import load_settings
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import Truncation
from nestvec.system.cpus import usable_cpus
from nestvec.tools.bench.load_generator import arrivals
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.fleet import FleetOptions, simulate
from nestvec.tools.planning.measuring.request_costs import CONNECTIONS
from nestvec.tools.planning.open_load import (
    FITTING_ROUNDS,
    OpenLoad,
    fit_idle_slowdown,
    requests_at,
)
from nestvec.tools.planning.replica import ReplicaOptions, SimulatedBatch
from nestvec.tools.planning.saturation import BusyLoad, fit_busy
from numpy.typing import NDArray

from benchmarks.open_load.runs import AROUND, SHARES, MeasuredRun, load_of
from benchmarks.open_load.slowness import Slowness, fit_slowness
from benchmarks.open_load.tables import rows

SIMULATIONS: Final = 5  # of each run: batches take a little longer or shorter by chance
# By how much a figure may be off: throughput, median, 99th percentile.
BARS: Final = {0.5: (0.05, 0.10, 0.20), 0.8: (0.05, 0.10, 0.20), 0.95: (0.25, 0.25, 0.25)}
NAMES: Final = ("requests/s", "p50", "p99")
WAYS: Final = ("foreseen", "at its speed")
HEAD: Final = (
    "seed",
    "load",
    "requests/s sent",
    *(f"{name}: measured, foreseen, at its speed" for name in NAMES),
    "times slower busy, idle, and between batches",
    "times slower second by second",
    "the server's CPU a request",
    "cores busy with other processes",
)
Texts = list[tuple[int, ...]]


class Lengths:
    """Tokens of the texts of a run, counted by the model's own tokenizer."""

    def __init__(self, model: str) -> None:
        package = prepare_model(load_settings({"model": model, "offline": True}, config=None))
        self._tokenizer = package.open_tokenizer(package.spec.max_tokens)

    def of(self, run: MeasuredRun) -> Texts:
        """Return the tokens of the texts of each request."""
        load = load_of(run.seed, run.share)
        for _ in zip(range(run.answered), load.requests(), strict=False):
            pass
        return [
            tuple(
                len(each.ids)
                for each in self._tokenizer.encode_texts(texts, TokenizeOptions(Truncation.END))
            )
            for texts in load.sent[: run.answered]
        ]


class SimulatedRun:
    """Simulations of the very requests of a run, on a machine that keeps its speed or does not.

    Args:
        run: What was measured.
        machine: Coefficients of the machine.
        texts: Tokens of the texts of each request.
    """

    def __init__(self, run: MeasuredRun, machine: MachineCoefficients, texts: Texts) -> None:
        self._run = run
        self._replica = replica_of(run, machine)
        self._texts = texts
        self._due_s = np.array(list(arrivals(run.requests_per_s, run.duration_s, run.seed)))

    def figures(self, slowness: Slowness | None = None) -> NDArray[np.float64]:
        """Return requests a second, median and 99th percentile, each the mean of several simulations, (3,)."""
        slowness = slowness or Slowness.none(np.array([self._run.duration_s]))
        found: list[list[float]] = []
        for answered_s, _ in self._simulate(slowness):
            latencies_s = answered_s - self._due_s
            percentiles = (float(np.percentile(latencies_s, share)) for share in (50, 99))
            found.append([len(answered_s) / float(answered_s.max()), *percentiles])
        means: NDArray[np.float64] = np.array(found).mean(axis=0)
        return means

    def batches(self, slowness: Slowness) -> list[SimulatedBatch]:
        """Return the batches of several simulations, by the time of a machine that was slow at times."""
        return [batch for _, found in self._simulate(slowness) for batch in found]

    def slowness(self) -> Slowness:
        """Return how slow the machine was, second by second, that the run was measured on."""
        return fit_slowness(self._run.samples, self._replica.coefficients.batch, self.batches)

    def _simulate(
        self, slowness: Slowness
    ) -> list[tuple[NDArray[np.float64], list[SimulatedBatch]]]:
        """Return when each request was answered, and the batches, of several simulations."""
        results = []
        for number in range(SIMULATIONS):
            # On a machine that keeps its speed requests come earlier or later by as much as the other is slower.
            requests = requests_at(slowness.work_s(self._due_s).tolist(), self._texts)
            options = FleetOptions(1, self._replica, seed=SIMULATIONS * self._run.seed + number)
            result = simulate(options, requests)
            answered_s = np.array([request.answered_s for request in result.requests], np.float64)
            ended_s, run_s, tokens = np.array(result.batches).T
            began_s = slowness.time_s(ended_s - run_s)
            ended_s = slowness.time_s(ended_s)
            batches = map(SimulatedBatch, ended_s, ended_s - began_s, tokens)
            results.append((slowness.time_s(answered_s), list(batches)))
        return results


def replica_of(run: MeasuredRun, machine: MachineCoefficients) -> ReplicaOptions:
    """Return the server of a run, with the load generator on the same cores."""
    half_s = run.client_s / 2
    if run.lone_threads:
        machine = machine.model_copy(update={"lone_threads": run.lone_threads})
    return ReplicaOptions(
        machine, machine.max_batch_tokens, client_send_s=half_s, client_receive_s=half_s
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What simulations give for a run.

    Attributes:
        machine: Coefficients of the machine as it was before and after.
        slowness: How slow it was besides, second by second.
        figures: Requests a second, median and 99th percentile by each of `WAYS`, (2, 3).
    """

    machine: MachineCoefficients
    slowness: Slowness
    figures: NDArray[np.float64]


def as_just_then(
    around: Sequence[tuple[MeasuredRun, Texts]], machine: MachineCoefficients
) -> MachineCoefficients:
    """Return the coefficients of a machine that was as fast, busy and idle in between, as runs say."""
    busy = [
        BusyLoad(
            texts,
            CONNECTIONS,
            run.requests_per_s,
            machine.workers * run.duration_s / run.answered - run.batch_s,
        )
        for run, texts in around
        if not run.share
    ]
    loads = [
        OpenLoad(
            list(arrivals(run.requests_per_s, run.duration_s, run.seed)),
            texts,
            run.client_s,
            run.batch_s * run.answered,
        )
        for run, texts in around
        if run.share
    ]
    options = replica_of(next(run for run, _ in around if not run.share), machine)
    for _round in range(FITTING_ROUNDS):
        options = replace(options, coefficients=fit_busy(options, busy))
        options = replace(options, coefficients=fit_idle_slowdown(options, loads))
    return options.coefficients


def compare(
    run: MeasuredRun,
    texts: Texts,
    around: Sequence[tuple[MeasuredRun, Texts]],
    machine: MachineCoefficients,
) -> Comparison:
    """Simulate the requests of a run.

    Args:
        run: What was measured.
        texts: Tokens of the texts of each request.
        around: What was measured before and after, with the same.
        machine: Coefficients of the machine, of another day maybe.
    """
    fitted = as_just_then(around, machine)
    simulated = SimulatedRun(run, fitted, texts)
    slowness = simulated.slowness()
    figures = np.array([simulated.figures(), simulated.figures(slowness)])
    return Comparison(fitted, slowness, figures)


def report(runs: Sequence[MeasuredRun], machine: MachineCoefficients) -> str:
    """Return the comparison as Markdown; runs are simulated side by side, on all cores."""
    lengths = Lengths(machine.model)
    texts = [lengths.of(run) for run in runs]
    pairs = list(zip(runs, texts, strict=True))
    with ProcessPoolExecutor(usable_cpus()) as pool:
        # How fast the machine is is seen before and after, as it changes.
        found = {
            number: pool.submit(
                compare,
                *pair,
                pairs[number - len(AROUND) : number] + pairs[number + 1 : number + 1 + len(AROUND)],
                machine,
            )
            for number, pair in enumerate(pairs)
            if pair[0].share in SHARES
        }
        compared = {number: future.result() for number, future in found.items()}
    tables = []
    for way, name in enumerate(WAYS):
        errors: dict[float, list[NDArray[np.float64]]] = {share: [] for share in SHARES}
        for number, each in compared.items():
            run = runs[number]
            errors[run.share].append(each.figures[way] / np.array(run.figures) - 1)
        tables += [f"**{name}**", "", *summary(errors), ""]
    lines = [_line(run, compared.get(number)) for number, run in enumerate(runs)]
    return "\n".join([*tables, *rows([HEAD, *lines])]) + "\n"


def _line(run: MeasuredRun, compared: Comparison | None) -> list[object]:
    """Return the line of a run; nothing is compared of those around."""
    beside = [f"{1000 * run.server_s:.1f} ms", f"{run.others_cores:.2f}"]
    sent = f"{run.requests_per_s:.1f}"
    if compared is None:
        load = f"{run.share:.0%}, around" if run.share else "capacity"
        return [run.seed, load, sent, *[""] * (len(NAMES) + 2), *beside]
    figures = zip(run.figures, *compared.figures, strict=True)
    cells = [_compared(number, *each) for number, each in enumerate(figures)]
    machine, times = compared.machine, compared.slowness.times
    slower = f"{machine.slowdown:.2f}, {1 + machine.idle_slowdown:.2f}"
    between = f"{1000 * machine.dispatch_s:.1f} ms"
    span = f"{times.min():.2f} to {times.max():.2f}"
    return [run.seed, f"{run.share:.0%}", sent, *cells, f"{slower}, {between}", span, *beside]


def _compared(figure: int, measured: float, *simulated: float) -> str:
    """Return a cell: one figure as it was measured and simulated."""
    unit, scale = ("", 1.0) if figure == 0 else (" ms", 1000.0)
    shown = [f"{scale * each:.1f} ({each / measured - 1:+.1%})" for each in simulated]
    return f"{scale * measured:.1f}{unit}, {', '.join(shown)}"


def summary(errors: dict[float, list[NDArray[np.float64]]]) -> list[str]:
    """Return by how much the simulation was off at each load: the median of the runs, the worst, and the bar."""
    lines: list[list[object]] = [
        ["load", *(f"{name}: median, worst, runs within" for name in NAMES)]
    ]
    for share, values in errors.items():
        if not values:
            continue
        sizes = np.abs(values)
        cells = [
            f"{np.median(sizes[:, i]):.1%}, {sizes[:, i].max():.1%}, "
            f"{(sizes[:, i] <= bar).sum()} of {len(values)} within {bar:.0%}"
            for i, bar in enumerate(BARS[share])
        ]
        lines.append([f"{share:.0%}", *cells])
    return rows(lines)
