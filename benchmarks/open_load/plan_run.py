"""Checks the simulation behind `nestvec plan` against a real server under an open load of known requests.

`measure` starts a server, sees how much it answers where sixteen connections are always busy, and then sends requests
at random times (Poisson) at 50, 80 and 95% of that, by turns; each run is a line of a file. `report` simulates the very
same requests and compares, in two ways.

Foreseen: what the simulation knows of a machine are the coefficients of `nestvec bench --coefficients`, and how fast it
was just then, busy and idle in between: from shorter runs before and after, with busy connections and of other requests
at 65 and 35%. That is what a plan can do.

At its speed: the same, on a machine that is as fast in each second of the run as its batches say; see `slowness`. That
tells whether queues, batches and threads are simulated rightly, where the machine does not keep its speed. Neither is
fitted to the latencies that it is compared with.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from selectors import SelectSelector
from typing import Final

from nestvec.system.cpus import cpu_model, usable_cpus
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadResult, closed_load, open_load
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.measuring.own_server import (
    BatchTotals,
    OwnServer,
    own_server,
    process_cpu_s,
)
from nestvec.tools.planning.measuring.request_costs import CONNECTIONS, MeasuredLoad
from nestvec.tools.planning.saturation import steady_requests_per_s

from benchmarks.open_load.plan_report import report
from benchmarks.open_load.runs import AROUND, SHARES, TEXTS, MeasuredRun, load_of
from benchmarks.run import result_file

WARM_UP_S: Final = 3.0
CAPACITY_S: Final = 5.0
AROUND_S: Final = 7.0
SAMPLE_S: Final = 1.0


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


@contextlib.contextmanager
def batches_sampled(server: OwnServer) -> Iterator[list[tuple[float, str]]]:
    """Read a server's metrics about each second; the list holds when, and what they were."""
    found: list[tuple[float, str]] = []
    has_ended = threading.Event()

    def sample() -> None:
        began_s = time.perf_counter()
        for number in itertools.count(1):
            found.append((time.perf_counter(), server.metrics()))
            if has_ended.wait(max(0.0, began_s + number * SAMPLE_S - time.perf_counter())):
                break

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        has_ended.set()
        thread.join()


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
            with contextlib.ExitStack() as stack:
                # Around the runs nothing asks the server for its metrics, which costs it some milliseconds.
                read = stack.enter_context(batches_sampled(server)) if share in SHARES else []
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
                capacity = rate = steady_requests_per_s(result.answered_s, CONNECTIONS)
                seconds = result.duration_s
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
                tuple((at_s - result.started_s, *BatchTotals.of(text)) for at_s, text in read),
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


def main() -> None:
    """Parse the arguments, and measure or report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("measure", "report"))
    parser.add_argument("--runs", type=Path, required=True, help="file of runs, a line each")
    parser.add_argument("--coefficients", type=Path, help="of `nestvec bench --coefficients`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
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
