"""Measures queries under ingestion: short ones at a fixed slow rate, alone and while bulk requests saturate the server.

Queries are an open load: each is timed from when it was due. Bulk runs alone too, to see which share of its rate it
keeps.
"""

import asyncio
import tempfile
from datetime import date
from pathlib import Path
from typing import Final

from nestvec.system.cpus import cpu_model, usable_cpus
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadResult, closed_load, open_load
from nestvec.tools.bench.texts import workload_texts

from benchmarks.arguments import parser_for
from benchmarks.http_run import requests_of
from benchmarks.processes import nestvec
from benchmarks.run import lengths_of, result_file

QUERY_RATE_PER_S: Final = 2.0
QUERY_TOKENS: Final = 32
BULK_CONNECTIONS: Final = 4
BULK_TEXTS: Final = 64


def short_queries(folder: Path, data: Path | None, number: int, seed: int) -> list[str]:
    """Return so many texts of at most `QUERY_TOKENS` tokens."""
    queries: list[str] = []
    while len(queries) < number:
        texts = workload_texts("short", data, seed=seed)
        lengths = lengths_of(texts, folder)
        queries += [text for text, n in zip(texts, lengths, strict=True) if n <= QUERY_TOKENS]
        seed += 1
    return queries[:number]


async def together(
    target: Target, queries: list[str], bulk: list[str] | None, duration_s: float, seed: int
) -> tuple[LoadResult, LoadResult | None]:
    """Send queries for so many seconds, with bulk beside them from before the first until after the last, if given."""
    querying = open_load(
        target,
        requests_of(queries, 1),
        rate_per_s=QUERY_RATE_PER_S,
        duration_s=duration_s,
        seed=seed,
    )
    if bulk is None:
        return await querying, None
    ingesting = asyncio.create_task(
        closed_load(
            target,
            requests_of(bulk, BULK_TEXTS),
            connections=BULK_CONNECTIONS,
            duration_s=duration_s + 2,
        )
    )
    await asyncio.sleep(1)
    result = await querying
    return result, await ingesting


def main() -> None:
    """Parse the arguments, run the benchmark, and write its report."""
    parser = parser_for(__doc__, rounds=3)
    parser.add_argument("--duration-s", type=float, default=40.0)
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    server = nestvec(
        "nestvec", arguments.precision, Path(tempfile.mkdtemp(prefix="nestvec-bench-"))
    )
    alone, flooded = LoadResult(), LoadResult()
    bulk_alone, bulk_beside = LoadResult(), LoadResult()
    server.start()
    try:
        target = Target.parse(server.url + "/v1/embeddings")
        for number in range(arguments.rounds):
            queries = short_queries(arguments.model, arguments.data, 400, seed=100 * number)
            bulk = [
                t
                for n in range(300)
                for t in workload_texts("paragraph", arguments.data, seed=300 * number + n)
            ]
            add(
                alone, asyncio.run(together(target, queries, None, arguments.duration_s, number))[0]
            )
            only = closed_load(
                target,
                requests_of(bulk, BULK_TEXTS),
                connections=BULK_CONNECTIONS,
                duration_s=arguments.duration_s / 2,
            )
            add(bulk_alone, asyncio.run(only))
            both = together(target, queries, bulk[::-1], arguments.duration_s, number)
            results, beside = asyncio.run(both)
            add(flooded, results)
            add(bulk_beside, beside or LoadResult())
    finally:
        server.stop()
    report = table(alone, flooded, bulk_alone, bulk_beside)
    head = (
        f"# Queries under ingestion, {arguments.precision}, {date.today().isoformat()}\n\n"  # noqa: DTZ011 - a person's date
        f"{cpu_model()}; {usable_cpus()} cores, shared by server and client. Queries of at most {QUERY_TOKENS} tokens, "
        f"{QUERY_RATE_PER_S:g} a second, timed from when each was due; bulk: {BULK_CONNECTIONS} connections with "
        f"{BULK_TEXTS} paragraphs a request. {arguments.rounds} rounds of {arguments.duration_s:g} s each way, "
        "in turns.\n\n"
    )
    out = arguments.out or result_file("-latency")
    out.write_text(head + report, "utf-8")
    print(head + report)


def add(total: LoadResult, more: LoadResult) -> None:
    """Add results to a total.

    Raises:
        SystemExit: A request failed.
    """
    if more.errors:
        raise SystemExit(f"answers: {dict(more.statuses)}")
    total.duration_s += more.duration_s
    total.latencies_s += more.latencies_s
    total.texts += more.texts
    total.tokens += more.tokens


def table(
    alone: LoadResult, flooded: LoadResult, bulk_alone: LoadResult, bulk_beside: LoadResult
) -> str:
    """Return the results as Markdown."""
    lines = ["| queries | number | p50 ms | p99 ms |", "|---|---|---|---|"]
    for name, result in (("server else idle", alone), ("bulk beside", flooded)):
        cells = [f"{result.percentile_s(share) * 1000:.1f}" for share in (50, 99)]
        lines.append(f"| {name} | {len(result.latencies_s)} | {cells[0]} | {cells[1]} |")
    ratio = flooded.percentile_s(99) / alone.percentile_s(99)
    rates = [result.tokens / result.duration_s for result in (bulk_beside, bulk_alone)]
    lines += [
        "",
        f"p99 under bulk is {ratio:.2f} times the unloaded one. "
        f"Bulk keeps {rates[0] / rates[1]:.0%} of its {rates[1]:,.0f} tokens/s.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
