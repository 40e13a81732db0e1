"""Checks the simulation behind `nestvec plan` against a real server under an open load of known requests.

`measure` starts a server, sees how much it answers where sixteen connections are always busy, and then sends requests
at random times (Poisson) at 50, 80 and 95% of that, by turns; each run is a line of a file. `report` simulates the very
same requests and compares. What the simulation knows of a machine are the coefficients of `nestvec bench
--coefficients`, and how fast it was just then, busy and idle in between: from shorter runs before and after, with busy
connections and of other requests at 65 and 35%. It is never fitted to what it is compared with.

Virtual machines have neighbours that take caches, memory and half of a core from them for seconds, which no counter
tells. So a run whose requests took the server over a twentieth more CPU time than is usual at that load is listed and
not counted, and there are more seeds than the five that count.
"""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from selectors import SelectSelector
from typing import Final

import numpy as np
from nestvec.assembly.package import prepare_model
from nestvec.config.loading import load_settings
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import Truncation
from nestvec.system.cpus import cpu_model, usable_cpus
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadResult, arrivals, closed_load, open_load
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.fleet import FleetOptions, simulate
from nestvec.tools.planning.measuring.own_server import own_server, process_cpu_s
from nestvec.tools.planning.measuring.request_costs import CONNECTIONS, MeasuredLoad
from nestvec.tools.planning.open_load import (
    FITTING_ROUNDS,
    OpenLoad,
    fit_idle_slowdown,
    requests_at,
)
from nestvec.tools.planning.replica import ReplicaOptions
from nestvec.tools.planning.saturation import fit_slowdown

from benchmarks.open_load.tables import rows
from benchmarks.run import result_file

SHARES: Final = (0.5, 0.8, 0.95)
WORDS: Final = (60, 120)
TEXTS: Final = 1
WARM_UP_S: Final = 3.0
CAPACITY_S: Final = 5.0
# Before and after each run: as many connections as can be always busy, and shares that no run has.
AROUND: Final = (0.0, 0.65, 0.35)
AROUND_S: Final = 7.0
RUNS: Final = 5  # of each load, that count
SLOWER: Final = 1.05  # CPU seconds a request, over the median of the runs at that load
# By how much a figure may be off: throughput, median, 99th percentile.
BARS: Final = {0.5: (0.05, 0.10, 0.20), 0.8: (0.05, 0.10, 0.20), 0.95: (0.25, 0.25, 0.25)}
NAMES: Final = ("requests/s", "p50", "p99")


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run of a server under load; its fields are the keys of a line.

    Attributes:
        seed: Of times, lengths and words.
        share: Share of the capacity; 0: as many connections as can be were always busy.
        requests_per_s: Requests a second that were sent, at share 0 answered.
        duration_s: For how long they were sent.
        figures: Requests answered a second, and the median and 99th percentile in seconds; empty at share 0.
        answered: Number of requests.
        client_s: CPU seconds of the load generator a request.
        server_s: CPU seconds of the server a request.
        batch_s: Seconds that the server's workers ran batches a request.
        others_cores: Cores that other processes kept busy meanwhile.
        lone_threads: Threads for a text that is alone on an idle server; 0: as many as the server chooses.
    """

    seed: int
    share: float
    requests_per_s: float
    duration_s: float
    figures: tuple[float, ...]
    answered: int
    client_s: float
    server_s: float
    batch_s: float
    others_cores: float
    lone_threads: int = 0


class IdleHolder:
    """A process that runs on a core while nothing else of this session does, so that no other process comes between.

    It belongs to the idle class of the scheduler (sched(7), SCHED_IDLE) and touches no memory: whatever the server or
    the load generator have to do goes first, at once. It ends with the process that began it, however that ends.
    """

    def __init__(self) -> None:
        spin = (
            "import os, sys\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
            "while os.getppid() == int(sys.argv[1]): pass"
        )
        self._process = subprocess.Popen([sys.executable, "-c", spin, str(os.getpid())])

    def cpu_s(self) -> float:
        """Return the CPU seconds that it has used so far."""
        return process_cpu_s(Path(f"/proc/{self._process.pid}/stat"))

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def load_of(seed: int, share: float) -> MeasuredLoad:
    """Return the texts of a run."""
    return MeasuredLoad(WORDS, TEXTS, 1000 * seed + round(100 * share))


def measure(
    seeds: list[int], duration_s: float, lone_threads: int, holders: list[IdleHolder]
) -> Iterator[MeasuredRun]:
    """Load a server of its own, for each seed and share: as much as it can do, then the share of that; and once more.

    Raises:
        SystemExit: A request was not answered.
    """
    with own_server({"offline": True, "lone_threads": lone_threads}) as server:
        target = Target.parse(server.url + "/v1/embeddings")
        warm_up = MeasuredLoad((5, 150), TEXTS, 0).requests()
        asyncio.run(closed_load(target, warm_up, connections=CONNECTIONS, duration_s=WARM_UP_S))
        capacity = 0.0
        order = [share for each in SHARES for share in (*AROUND, each)]
        for seed, share in itertools.product(seeds, [*order, *AROUND]):
            seconds = duration_s if share in SHARES else AROUND_S if share else CAPACITY_S
            rate = share * capacity
            requests = load_of(seed, share).requests()
            client_s, busy_s, began_s = time.process_time(), busy_cpu_s(), time.perf_counter()
            server_s, batch_s = server.cpu_s(), server.batch_s()
            own_s = server_s + sum(holder.cpu_s() for holder in holders)
            if share:
                sending = open_load(
                    target, requests, rate_per_s=rate, duration_s=seconds, seed=seed
                )
            else:
                sending = closed_load(target, requests, connections=CONNECTIONS, duration_s=seconds)
            result = run_precisely(sending)
            client_s, server_s = time.process_time() - client_s, server.cpu_s() - server_s
            own_s = server.cpu_s() + sum(holder.cpu_s() for holder in holders) - own_s + client_s
            others_s = busy_cpu_s() - busy_s - own_s
            if result.errors:
                raise SystemExit(f"answers: {dict(result.statuses)}")
            answered = len(result.latencies_s)
            figures: tuple[float, ...] = ()
            if share:
                percentiles = (result.percentile_s(50), result.percentile_s(99))
                figures = (answered / result.duration_s, *percentiles)
            else:
                capacity = rate = answered / result.duration_s
            yield MeasuredRun(
                seed,
                share,
                rate,
                seconds,
                figures,
                answered,
                client_s / answered,
                server_s / answered,
                (server.batch_s() - batch_s) / answered,
                max(0.0, others_s) / (time.perf_counter() - began_s),
                lone_threads,
            )


def run_precisely(load: Coroutine[None, None, LoadResult]) -> LoadResult:
    """Run a load on an event loop that keeps time to microseconds: epoll's timers end at the next millisecond."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(SelectSelector())) as runner:
        return runner.run(load)


def busy_cpu_s() -> float:
    """Return the CPU seconds that all processes of the machine have used: proc(5), stat."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system = (int(field) for field in fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def simulated(
    run: MeasuredRun, machine: MachineCoefficients, lengths: list[tuple[int, ...]]
) -> tuple[float, float, float]:
    """Return what a simulation of the requests of a run gives: requests a second, median, 99th percentile."""
    due_s = arrivals(run.requests_per_s, run.duration_s, run.seed)
    options = FleetOptions(1, replica_of(run, machine), seed=run.seed)
    result = simulate(options, requests_at(due_s, lengths))
    rate = len(result.latencies_s()) / result.duration_s
    return rate, result.percentile_s(50), result.percentile_s(99)


def replica_of(run: MeasuredRun, machine: MachineCoefficients) -> ReplicaOptions:
    """Return the server of a run, with the load generator on the same cores."""
    half_s = run.client_s / 2
    if run.lone_threads:
        machine = machine.model_copy(update={"lone_threads": run.lone_threads})
    return ReplicaOptions(
        machine, machine.max_batch_tokens, client_send_s=half_s, client_receive_s=half_s
    )


def as_just_then(
    around: list[MeasuredRun], machine: MachineCoefficients, lengths: "Lengths"
) -> MachineCoefficients:
    """Return the coefficients of a machine that was as fast, busy and idle in between, as runs say."""
    busy = [run for run in around if not run.share]
    loads = [
        OpenLoad(
            list(arrivals(run.requests_per_s, run.duration_s, run.seed)),
            lengths.of(run),
            run.client_s,
            run.batch_s * run.answered,
        )
        for run in around
        if run.share
    ]
    requests_per_s = sum(run.requests_per_s for run in busy) / len(busy)
    options = replica_of(busy[0], machine)
    for _round in range(FITTING_ROUNDS):
        slower = fit_slowdown(options, lengths.of(busy[0]), CONNECTIONS, requests_per_s)
        options = replace(options, coefficients=slower)
        options = replace(options, coefficients=fit_idle_slowdown(options, loads))
    return options.coefficients


class Lengths:
    """Tokens of the texts of a run, counted by the model's own tokenizer."""

    def __init__(self, model: str) -> None:
        package = prepare_model(load_settings({"model": model, "offline": True}, config=None))
        self._tokenizer = package.open_tokenizer(package.spec.max_tokens)

    def of(self, run: MeasuredRun) -> list[tuple[int, ...]]:
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


def counted(runs: list[MeasuredRun]) -> set[int]:
    """Return the numbers of the runs that count: the first of each load during which the machine was no slower."""
    found: set[int] = set()
    for share in SHARES:
        numbers = [number for number, run in enumerate(runs) if run.share == share]
        usual_s = float(np.median([runs[number].server_s for number in numbers] or [0.0]))
        found |= set([n for n in numbers if runs[n].server_s <= SLOWER * usual_s][:RUNS])
    return found


def report(runs: list[MeasuredRun], machine: MachineCoefficients) -> str:
    """Return the comparison as Markdown."""
    lengths, lines, that_count = Lengths(machine.model), [], counted(runs)
    errors: dict[float, list[tuple[float, ...]]] = {share: [] for share in SHARES}
    for number, run in enumerate(runs):
        beside = [f"{1000 * run.server_s:.1f} ms", f"{run.others_cores:.2f}"]
        if run.share not in SHARES:
            load = f"{run.share:.0%}, around" if run.share else "capacity"
            lines.append([run.seed, load, f"{run.requests_per_s:.1f}", "", "", "", "", *beside, ""])
            continue
        # How fast the machine is is seen before and after, as it changes.
        around = runs[number - len(AROUND) : number] + runs[number + 1 : number + 1 + len(AROUND)]
        fitted = as_just_then(around, machine, lengths)
        found = simulated(run, fitted, lengths.of(run))
        off = tuple(s / m - 1 for s, m in zip(found, run.figures, strict=True))
        if number in that_count:
            errors[run.share].append(off)
        cells = [f"{run.figures[0]:.1f} / {found[0]:.1f} ({off[0]:+.1%})"]
        cells += [
            f"{1000 * m:.1f} / {1000 * s:.1f} ms ({error:+.1%})"
            for m, s, error in zip(run.figures[1:], found[1:], off[1:], strict=True)
        ]
        counts = "yes" if number in that_count else "no"
        sent = f"{run.requests_per_s:.1f}"
        slower = f"{fitted.slowdown:.2f}, {1 + fitted.idle_slowdown:.2f}"
        lines.append([run.seed, f"{run.share:.0%}", sent, *cells, slower, *beside, counts])
    head = ["seed", "load", "requests/s sent", "requests/s, measured / simulated", "p50", "p99"]
    head += ["times slower while busy, while idle"]
    head += ["the server's CPU a request", "cores busy with other processes", "counts"]
    return "\n".join([*summary(errors), "", *rows([head, *lines])]) + "\n"


def summary(errors: dict[float, list[tuple[float, ...]]]) -> list[str]:
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


def main() -> None:
    """Parse the arguments, and measure or report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("measure", "report"))
    parser.add_argument("--runs", type=Path, required=True, help="file of runs, a line each")
    parser.add_argument("--coefficients", type=Path, help="of `nestvec bench --coefficients`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6, 7])
    parser.add_argument("--duration-s", type=float, default=25.0, help="of each load")
    parser.add_argument(
        "--lone-threads", type=int, default=0, help="of the server; 0: its own choice"
    )
    parser.add_argument(
        "--hold-idle",
        action="store_true",
        help="keep idle cores from other processes, where others work on this machine",
    )
    parser.add_argument("--out", type=Path, help="default: a file of benchmarks/results/")
    arguments = parser.parse_args()
    if arguments.step == "measure":
        holders = [IdleHolder() for _ in range(usable_cpus() if arguments.hold_idle else 0)]
        try:
            for run in measure(
                arguments.seeds, arguments.duration_s, arguments.lone_threads, holders
            ):
                with arguments.runs.open("a") as file:
                    file.write(json.dumps(asdict(run)) + "\n")
        finally:
            for holder in holders:
                holder.end()
        return
    machine = MachineCoefficients.read(arguments.coefficients)
    lines = arguments.runs.read_text("utf-8").splitlines()
    text = report([MeasuredRun(**json.loads(line)) for line in lines], machine)
    head = (
        f"# The plan's simulation against a real server, {date.today().isoformat()}\n\n"  # noqa: DTZ011 - a person's date
        f"{cpu_model()}; {usable_cpus()} cores, shared by server and load generator.\n\n"
    )
    (arguments.out or result_file("-plan-check")).write_text(head + text, "utf-8")
    print(head + text)


if __name__ == "__main__":
    main()
