"""Measures a batch of many lines: its rate beside that of offline embedding, and queries while it runs.

All of it is one run on one server with the same texts, cut to be unique: queries on an idle server, the batch alone,
the batch with queries, then the same texts by `nestvec embed`.
"""

import asyncio
import json
import subprocess
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Final

import httpx
from nestvec.system.cpus import cpu_model, usable_cpus
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadResult
from nestvec.tools.bench.texts import unique_texts

from benchmarks.arguments import parser_for
from benchmarks.open_load.latency_run import (
    QUERY_RATE_PER_S,
    QUERY_TOKENS,
    add,
    short_queries,
    together,
)
from benchmarks.processes import NESTVEC, nestvec
from benchmarks.run import result_file

LINES: Final = 20_000


def submit(url: str, texts: list[str]) -> str:
    """Upload texts as the lines of a batch and begin it; returns its id."""
    content = "\n".join(
        json.dumps(
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"input": text, "encoding_format": "base64"},
            }
        )
        for number, text in enumerate(texts)
    )
    form = {"file": ("in.jsonl", content.encode())}
    file = httpx.post(f"{url}/v1/files", data={"purpose": "batch"}, files=form, timeout=60).json()
    request = {"input_file_id": file["id"], "endpoint": "/v1/embeddings"}
    answer: dict[str, str] = httpx.post(f"{url}/v1/batches", json=request).json()
    return answer["id"]


async def ended(url: str, batch_id: str) -> float:
    """Wait for a batch; returns the seconds from its submission's return to its end.

    Raises:
        SystemExit: The batch failed.
    """
    started = time.monotonic()
    async with httpx.AsyncClient(base_url=url) as client:
        while True:
            batch = (await client.get(f"/v1/batches/{batch_id}")).json()
            if batch["status"] == "completed" and batch["request_counts"]["completed"] == LINES:
                return time.monotonic() - started
            if batch["status"] not in ("validating", "in_progress", "finalizing"):
                raise SystemExit(f"the batch ended as {batch['status']}: {batch['errors']}")
            await asyncio.sleep(0.25)


async def with_queries(url: str, batch_id: str, queries: list[str]) -> tuple[float, LoadResult]:
    """Send queries from a batch's start to near its end; returns the batch's seconds and the queries' results."""
    target = Target.parse(url + "/v1/embeddings")
    total = LoadResult()

    async def ask() -> None:
        number = 0
        while True:
            part = queries[number * 10 : number * 10 + 10]
            add(total, (await together(target, part, None, 5, number))[0])
            number += 1

    asking = asyncio.create_task(ask())
    took_s = await ended(url, batch_id)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return took_s, total


def offline_s(texts: list[str], precision: str, folder: Path) -> float:
    """Return the seconds that `nestvec embed` says it took, its start excluded."""
    source = folder / "in.txt"
    source.write_text("\n".join(text.replace("\n", " ") for text in texts), "utf-8")
    command = [str(NESTVEC), "embed", str(source), str(folder / "out.npy"), "--offline"]
    completed = subprocess.run(
        [*command, "--precision", precision], capture_output=True, text=True, check=True
    )
    seconds = completed.stdout.rsplit(" tokens in ", 1)[1].split(" s", 1)[0]
    return float(seconds)


def main() -> None:
    """Parse the arguments, run the benchmark, and write its report."""
    parser = parser_for(__doc__, rounds=1)
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="nestvec-bench-"))
    server = nestvec("nestvec", arguments.precision, scratch)
    alone, beside = LoadResult(), LoadResult()
    alone_s, beside_s, embed_s = [], [], []
    server.start()
    try:
        target = Target.parse(server.url + "/v1/embeddings")
        for number in range(arguments.rounds):
            queries = short_queries(arguments.model, arguments.data, 1000, seed=100 * number)
            add(alone, asyncio.run(together(target, queries, None, 40, number))[0])
            texts = unique_texts("short", LINES, arguments.data, 3 * number)
            alone_s.append(asyncio.run(ended(server.url, submit(server.url, texts))))
            others = unique_texts("short", LINES, arguments.data, 3 * number + 1)
            took_s, results = asyncio.run(
                with_queries(server.url, submit(server.url, others), queries[500:])
            )
            beside_s.append(took_s)
            add(beside, results)
            embed_s.append(offline_s(texts, arguments.precision, scratch))
    finally:
        server.stop()
    p99 = [result.percentile_s(99) * 1000 for result in (alone, beside)]
    report = (
        f"# Batches, {arguments.precision}, {date.today().isoformat()}\n\n"  # noqa: DTZ011 - a person's date
        f"{cpu_model()}; {usable_cpus()} cores, shared by server and client. {LINES:,} lines of one short text, "
        f"base64; queries of at most {QUERY_TOKENS} tokens, {QUERY_RATE_PER_S:g} a second. Best of "
        f"{arguments.rounds} rounds.\n\n"
        f"- `nestvec embed` of the same texts: {min(embed_s):.1f} s\n"
        f"- the batch alone, checking and naming its files included: {min(alone_s):.1f} s, "
        f"{min(embed_s) / min(alone_s):.0%} of the offline rate\n"
        f"- the batch with queries beside: {min(beside_s):.1f} s, keeps {min(alone_s) / min(beside_s):.0%}\n"
        f"- queries: p99 {p99[0]:.1f} ms on the idle server ({len(alone.latencies_s)}), {p99[1]:.1f} ms beside the "
        f"batch ({len(beside.latencies_s)}): {p99[1] / p99[0]:.2f} times\n"
    )
    out = arguments.out or result_file("-batch")
    out.write_text(report, "utf-8")
    print(report)


if __name__ == "__main__":
    main()
