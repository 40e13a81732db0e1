"""Compares servers over HTTP, in turn, round by round, in one run; our bare engine takes part for its CPU time.

The client shares the cores with the server, so CPU seconds of the server for a million tokens are the fair measure;
throughput is shown too. Servers stay up and idle while the others run.
"""

import argparse
import asyncio
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import orjson
from nestvec.cli.export import command as export
from nestvec.system.cpus import cpu_model, usable_cpus
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadRequest, LoadResult, closed_load
from nestvec.tools.bench.texts import unique_texts, workload_texts

from benchmarks.arguments import parser_for
from benchmarks.engines import HERE, PEERS_PYTHON, Engine, start
from benchmarks.processes import Server, nestvec
from benchmarks.run import lengths_of, result_file

INFINITY: Final = HERE.parent / ".venv-infinity/bin/infinity_emb"
# Single queries in each round.
QUERIES: Final = 30


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load over HTTP.

    Attributes:
        name: Its title in the report.
        load: Kind of texts.
        requests: Number of requests in each round.
        texts_per_request: Number of texts in a request.
        connections: Number of connections that are kept busy.
    """

    name: str
    load: str
    requests: int
    texts_per_request: int
    connections: int


SCENARIOS: Final = (
    Scenario("short, 1 text a request, 64 connections", "short", 640, 1, 64),
    Scenario("mixed, 4 texts a request, 64 connections", "mixed", 128, 4, 64),
    Scenario("mixed, 32 texts a request, 16 connections", "mixed", 16, 32, 16),
)


@dataclass
class Figures:
    """What was measured of one server or engine in one scenario, a value for each round."""

    tokens_per_s: list[float] = field(default_factory=list)
    cpu_s_per_mtok: list[float] = field(default_factory=list)
    p50_s: list[float] = field(default_factory=list)
    p99_s: list[float] = field(default_factory=list)


def servers_of(folder: Path, exported: Path, logs: Path) -> list[Server]:
    """Return the servers to compare; infinity, with both of its engines for CPUs, is left out where its venv is absent.

    Args:
        folder: Folder of the model's files.
        exported: Folder of our padded graph of the model, for the engine that takes ONNX.
        logs: Folder for each server's output.
    """
    threads = str(usable_cpus())
    servers = [
        nestvec("nestvec", "fp32", logs),
        nestvec("nestvec int8", "int8", logs),
        Server(
            "FastAPI + sentence-transformers",
            [*map(str, (PEERS_PYTHON, HERE / "servers/fastapi_app.py", folder)), "{port}", threads],
            log=logs / "fastapi.log",
        ),
    ]
    if INFINITY.is_file():
        servers += [infinity("torch", folder, logs), infinity("optimum", exported, logs)]
    return servers


def infinity(engine: str, folder: Path, logs: Path) -> Server:
    """Return infinity's server with one of its engines; it finds the graph only if started in the model's folder."""
    command = [str(INFINITY), "v2", "--model-id", ".", "--served-model-name", "model"]
    command += ["--engine", engine, "--no-bettertransformer", "--device", "cpu"]
    command += ["--dtype", "float32", "--no-model-warmup", "--url-prefix", "/v1"]
    command += ["--batch-size", "32", "--host", "127.0.0.1", "--port", "{port}"]
    quiet = {"INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    # Its ONNX engine keeps optimized graphs there by the model's path.
    quiet["HF_HUB_CACHE"] = str(logs)
    log = logs / f"infinity-{engine}.log"
    return Server(f"infinity, {engine}", command, env=quiet, log=log, folder=folder)


def requests_of(texts: list[str], per_request: int) -> Iterator[LoadRequest]:
    """Yield requests of so many texts, each text once; a request of one text has it as a string."""
    for start_at in range(0, len(texts), per_request):
        part = texts[start_at : start_at + per_request]
        body = {"model": "model", "input": part if per_request > 1 else part[0]}
        yield LoadRequest(orjson.dumps({**body, "encoding_format": "base64"}), len(part))


def run_round(
    server: Server, scenario: Scenario, texts: list[str], tokens: int, figures: Figures
) -> None:
    """Run one scenario on one server, and append what was measured to its figures.

    Raises:
        SystemExit: A request failed.
    """
    target = Target.parse(server.url + "/v1/embeddings")
    before = server.cpu_s()
    work = closed_load(
        target,
        requests_of(texts, scenario.texts_per_request),
        connections=scenario.connections,
        duration_s=600,
    )
    result: LoadResult = asyncio.run(work)
    cpu_s = server.cpu_s() - before
    if result.errors or result.texts != len(texts):
        raise SystemExit(f"{server.name}: {scenario.name}: answers {dict(result.statuses)}")
    figures.tokens_per_s.append(tokens / result.duration_s)
    figures.cpu_s_per_mtok.append(cpu_s / tokens * 1e6)
    figures.p50_s.append(result.percentile_s(50))
    figures.p99_s.append(result.percentile_s(99))


def queries(server: Server, texts: list[str]) -> list[float]:
    """Return the seconds that single texts take on one connection of the idle server."""
    target = Target.parse(server.url + "/v1/embeddings")
    work = closed_load(target, requests_of(texts, 1), connections=1, duration_s=600)
    return asyncio.run(work).latencies_s


@dataclass
class Contest:
    """Everything that was measured.

    Attributes:
        figures: Figures by server or engine, and scenario.
        query_s: Seconds of each single query, by server or engine.
    """

    figures: dict[tuple[str, str], Figures] = field(default_factory=dict)
    query_s: dict[str, list[float]] = field(default_factory=dict)

    def of(self, name: str, scenario: str) -> Figures:
        """Return the figures of a server or engine in a scenario."""
        return self.figures.setdefault((name, scenario), Figures())


ENGINES: Final = {
    name: Engine(name, "nestvec_engine", precision, (), is_peer=False)
    for name, precision in (("engine", "fp32"), ("engine int8", "int8"))
}
BUDGET: Final = {"budget": 256}


def run_contest(arguments: argparse.Namespace, servers: list[Server], contest: Contest) -> None:
    """Run all rounds on all servers, and on our engine in process; the first round warms up and is not counted."""
    workers = {
        name: start(engine, arguments.model, arguments.model) for name, engine in ENGINES.items()
    }
    for number in range(arguments.rounds + 1):
        for scenario in SCENARIOS:
            texts = unique_texts(
                scenario.load,
                scenario.requests * scenario.texts_per_request,
                arguments.data,
                number,
            )
            tokens = sum(lengths_of(texts, arguments.model))
            for name, worker in workers.items():
                answer = worker.ask(texts, BUDGET)
                figures = contest.of(name, scenario.name)
                figures.tokens_per_s.append(tokens / answer["seconds"])
                figures.cpu_s_per_mtok.append(answer["cpu_s"] / tokens * 1e6)
            for server in servers:
                run_round(server, scenario, texts, tokens, contest.of(server.name, scenario.name))
        singles = workload_texts("short", arguments.data, seed=5000 + number)[:QUERIES]
        for name, worker in workers.items():
            each_s = worker.ask(singles, BUDGET, each=True)["each_s"]
            contest.query_s.setdefault(name, []).extend(each_s)
        for server in servers:
            contest.query_s.setdefault(server.name, []).extend(queries(server, singles))
        if number == 0:
            contest.figures.clear()
            contest.query_s.clear()
        print(f"round {number} of {arguments.rounds}", file=sys.stderr)
    for worker in workers.values():
        worker.stop()


def table(contest: Contest, servers: list[Server]) -> str:
    """Return the results as Markdown."""
    lines = []
    names = [*ENGINES, *(server.name for server in servers)]
    for scenario in SCENARIOS:
        base = max(contest.of("nestvec", scenario.name).tokens_per_s)
        lines += [
            f"## {scenario.name}",
            "",
            "| | tokens/s, best | nestvec is … times as fast | median/best | CPU s / Mtoken | p50 ms | p99 ms |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in names:
            figures = contest.of(name, scenario.name)
            best, middle = max(figures.tokens_per_s), statistics.median(figures.tokens_per_s)
            latencies = [
                f"{min(values) * 1000:,.0f}" if values else ""
                for values in (figures.p50_s, figures.p99_s)
            ]
            lines.append(
                f"| {name} | {best:,.0f} | {base / best:.2f} | {middle / best:.2f} | "
                f"{min(figures.cpu_s_per_mtok):,.0f} | {latencies[0]} | {latencies[1]} |"
            )
        lines.append("")
        for ours, engine in (("nestvec", "engine"), ("nestvec int8", "engine int8")):
            over = contest.of(ours, scenario.name).cpu_s_per_mtok
            bare = contest.of(engine, scenario.name).cpu_s_per_mtok
            lines.append(
                f"CPU of the server over the bare engine's, {ours}: {min(over) / min(bare):.2f}."
            )
        lines.append("")
    lines += [
        "## Single short queries, one at a time",
        "",
        "| | p50 ms | p99 ms |",
        "|---|---|---|",
    ]
    for name in names:
        cells = [
            f"{seconds * 1000:.2f}" for seconds in np.percentile(contest.query_s[name], (50, 99))
        ]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    lines += ["", "Peak memory, MB: "]
    lines[-1] += ", ".join(f"{server.name} {server.peak_rss_mb():,.0f}" for server in servers) + "."
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the arguments, run the benchmark, and write its report."""
    arguments = parser_for(__doc__, rounds=7).parse_args()
    contest = Contest()
    # The folder stays after the run: a server that fails says why there.
    logs = Path(tempfile.mkdtemp(prefix="nestvec-bench-"))
    export.main(["--padded", "--offline", str(logs / "padded")], standalone_mode=False)
    servers = servers_of(arguments.model, logs / "padded", logs)
    try:
        for server in servers:
            server.start()
        run_contest(arguments, servers, contest)
        text = table(contest, servers)
    finally:
        for server in servers:
            server.stop()
    head = (
        f"# Over HTTP, {date.today().isoformat()}\n\n"  # noqa: DTZ011 - a person's date
        f"{cpu_model()}; {usable_cpus()} cores, shared by server and client; Python {platform.python_version()}. "
        f"Base64, texts unique, {arguments.rounds} interleaved rounds; the best round "
        "counts.\n\n"
    )
    out = arguments.out or result_file("-http")
    out.write_text(head + text, "utf-8")
    print(head + text)


if __name__ == "__main__":
    main()
