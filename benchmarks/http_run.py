"""Runs servers over HTTP in turn, round by round, in one run; the bare engine of ours takes part for its CPU time.

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
from nestvec.tools.bench.load import LoadResult, Request, closed_load
from nestvec.tools.bench.loads import texts_of, unique_texts

from benchmarks.arguments import parser_for
from benchmarks.engines import HERE, PEERS_PYTHON, Engine, start
from benchmarks.processes import Server
from benchmarks.run import lengths_of, result_file

INFINITY: Final = HERE.parent / ".venv-infinity/bin/infinity_emb"
NESTVEC: Final = Path(sys.executable).parent / "nestvec"
QUERIES: Final = 30  # one by one, a round


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load over HTTP.

    Attributes:
        requests: In each round.
        each: Texts in a request.
        connections: Kept busy.
    """

    name: str
    load: str
    requests: int
    each: int
    connections: int


SCENARIOS: Final = (
    Scenario("short, 1 text a request, 64 connections", "short", 640, 1, 64),
    Scenario("mixed, 4 texts a request, 64 connections", "mixed", 128, 4, 64),
    Scenario("mixed, 32 texts a request, 16 connections", "mixed", 16, 32, 16),
)


@dataclass
class Figures:
    """Of one contender in one scenario, a value a round."""

    tokens_per_s: list[float] = field(default_factory=list)
    cpu_s_per_mtok: list[float] = field(default_factory=list)
    p50_s: list[float] = field(default_factory=list)
    p99_s: list[float] = field(default_factory=list)


def servers_of(folder: Path, exported: Path, logs: Path) -> list[Server]:
    """Contenders; infinity, with both its engines for a CPU, is left out where its venv is absent.

    Args:
        folder: The model's files.
        exported: Our padded graph of it, for the engine that takes ONNX.
        logs: Where each server's output goes.
    """
    threads = str(usable_cpus())
    found = [
        nestvec("nestvec", "fp32", logs),
        nestvec("nestvec int8", "int8", logs),
        Server(
            "FastAPI + sentence-transformers",
            [*map(str, (PEERS_PYTHON, HERE / "servers/fastapi_app.py", folder)), "{port}", threads],
            log=logs / "fastapi.log",
        ),
    ]
    if INFINITY.is_file():
        found += [infinity("torch", folder, logs), infinity("optimum", exported, logs)]
    return found


def infinity(engine: str, folder: Path, logs: Path) -> Server:
    """Infinity's server with one of its engines; started in the model's folder, whose graph it finds no other way."""
    command = [str(INFINITY), "v2", "--model-id", ".", "--served-model-name", "model"]
    command += ["--engine", engine, "--no-bettertransformer", "--device", "cpu"]
    command += ["--dtype", "float32", "--no-model-warmup", "--url-prefix", "/v1"]
    command += ["--batch-size", "32", "--host", "127.0.0.1", "--port", "{port}"]
    quiet = {"INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    # Its ONNX engine keeps optimised graphs there by the model's path.
    quiet["HF_HUB_CACHE"] = str(logs)
    log = logs / f"infinity-{engine}.log"
    return Server(f"infinity, {engine}", command, env=quiet, log=log, folder=folder)


def nestvec(name: str, precision: str, logs: Path) -> Server:
    """Our server in a precision."""
    command = [str(NESTVEC), "serve", "--offline", "--port", "{port}", "--precision", precision]
    command += ["--truncate", "end", "--accept-any-model", "--data-dir", str(logs / f"{name} data")]
    command += ["--vector-cache-bytes", "0"]  # what is measured is the model
    return Server(name, command, health="/health/ready", log=logs / f"{name}.log")


def requests_of(texts: list[str], each: int) -> Iterator[Request]:
    """The texts once, in requests."""
    for start_at in range(0, len(texts), each):
        part = texts[start_at : start_at + each]
        body = {"model": "model", "input": part if each > 1 else part[0]}
        yield Request(orjson.dumps({**body, "encoding_format": "base64"}), len(part))


def run_round(
    server: Server, scenario: Scenario, texts: list[str], tokens: int, figures: Figures
) -> None:
    """One server, one scenario."""
    target = Target.parse(server.url + "/v1/embeddings")
    before = server.cpu_s()
    work = closed_load(
        target,
        requests_of(texts, scenario.each),
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
    """Latency of single short texts on one connection of the idle server."""
    target = Target.parse(server.url + "/v1/embeddings")
    work = closed_load(target, requests_of(texts, 1), connections=1, duration_s=600)
    return asyncio.run(work).latencies_s


@dataclass
class Contest:
    """All that was measured."""

    figures: dict[tuple[str, str], Figures] = field(default_factory=dict)
    query_s: dict[str, list[float]] = field(default_factory=dict)

    def of(self, name: str, scenario: str) -> Figures:
        """A contender's figures."""
        return self.figures.setdefault((name, scenario), Figures())


ENGINES: Final = {
    name: Engine(name, "nestvec_engine", precision, (), is_peer=False)
    for name, precision in (("engine", "fp32"), ("engine int8", "int8"))
}
BUDGET: Final = {"budget": 256}


def contest(asked: argparse.Namespace, servers: list[Server], contest: Contest) -> None:
    """All rounds; ours in process too."""
    workers = {name: start(engine, asked.model, asked.model) for name, engine in ENGINES.items()}
    for number in range(asked.rounds + 1):  # the first warms up
        for scenario in SCENARIOS:
            texts = unique_texts(
                scenario.load, scenario.requests * scenario.each, asked.data, number
            )
            tokens = sum(lengths_of(texts, asked.model))
            for name, worker in workers.items():
                found = worker.ask(texts, BUDGET)
                figures = contest.of(name, scenario.name)
                figures.tokens_per_s.append(tokens / found["seconds"])
                figures.cpu_s_per_mtok.append(found["cpu_s"] / tokens * 1e6)
            for server in servers:
                run_round(server, scenario, texts, tokens, contest.of(server.name, scenario.name))
        singles = texts_of("short", asked.data, seed=5000 + number)[:QUERIES]
        for name, worker in workers.items():
            each_s = worker.ask(singles, BUDGET, each=True)["each_s"]
            contest.query_s.setdefault(name, []).extend(each_s)
        for server in servers:
            contest.query_s.setdefault(server.name, []).extend(queries(server, singles))
        if number == 0:
            contest.figures.clear()
            contest.query_s.clear()
        print(f"round {number} of {asked.rounds}", file=sys.stderr)
    for worker in workers.values():
        worker.stop()


def table(found: Contest, servers: list[Server]) -> str:
    """The results as Markdown."""
    lines = []
    names = [*ENGINES, *(server.name for server in servers)]
    for scenario in SCENARIOS:
        base = max(found.of("nestvec", scenario.name).tokens_per_s)
        lines += [
            f"## {scenario.name}",
            "",
            "| | tokens/s, best | nestvec is … times as fast | median/best | CPU s / Mtoken | p50 ms | p99 ms |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in names:
            figures = found.of(name, scenario.name)
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
            over = found.of(ours, scenario.name).cpu_s_per_mtok
            bare = found.of(engine, scenario.name).cpu_s_per_mtok
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
            f"{seconds * 1000:.2f}" for seconds in np.percentile(found.query_s[name], (50, 99))
        ]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    lines += ["", "Peak memory, MB: "]
    lines[-1] += ", ".join(f"{server.name} {server.peak_rss_mb():,.0f}" for server in servers) + "."
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse, run, write."""
    asked = parser_for(__doc__, rounds=7).parse_args()
    found = Contest()
    # Kept after the run: a server that fails says why there.
    logs = Path(tempfile.mkdtemp(prefix="nestvec-bench-"))
    export.main(["--padded", "--offline", str(logs / "padded")], standalone_mode=False)
    servers = servers_of(asked.model, logs / "padded", logs)
    try:
        for server in servers:
            server.start()
        contest(asked, servers, found)
        text = table(found, servers)
    finally:
        for server in servers:
            server.stop()
    head = (
        f"# Over HTTP, {date.today().isoformat()}\n\n"  # noqa: DTZ011 - a person's date
        f"{cpu_model()}; {usable_cpus()} cores, shared by server and client; Python {platform.python_version()}. "
        f"Base64, texts unique, {asked.rounds} interleaved rounds; the best round "
        "counts.\n\n"
    )
    out = asked.out or result_file("-http")
    out.write_text(head + text, "utf-8")
    print(head + text)


if __name__ == "__main__":
    main()
