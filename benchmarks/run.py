"""Compares engines in process, in turn, round by round, in one run; writes tables of ratios.

Each engine is a process that stays loaded and idles while the others run. A sweep finds each one's best setting on
each load first; then come the rounds, interleaved, so that a slow moment of the machine hits everyone. The least
time of several rounds counts: noise only ever adds.
"""

import argparse
import platform
import statistics
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
from nestvec.assembly.package import prepare_model
from nestvec.backends.open import open_backend
from nestvec.cli.export import command as export
from nestvec.config.loading import load_settings
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Truncation
from nestvec.system.cpus import cpu_model, usable_cpus
from nestvec.tools.bench.roofline import flops_per_token, peak_gemm_flops_per_s
from nestvec.tools.bench.texts import WORKLOADS, workload_texts

from benchmarks.arguments import parser_for
from benchmarks.engines import HERE, Engine, Worker, engines_of, start

SWEEP_ROUNDS: Final = 2
QUERIES: Final = 100
# Coarser precisions change a vector's direction a little, another model or pooling a lot.
MIN_COSINE: Final = 0.95


def sweep(worker: Worker, load: str, texts: list[str]) -> None:
    """Find the setting with which a worker is fastest on a load, and remember it."""
    settings = worker.engine.settings
    took_s = {
        index: min(worker.ask(texts, setting)["seconds"] for _ in range(SWEEP_ROUNDS))
        for index, setting in enumerate(settings)
    }
    worker.best[load] = settings[min(took_s, key=lambda index: took_s[index])]


def lengths_of(texts: list[str], folder: Path) -> list[int]:
    """Return the number of tokens of each text after truncation, by the model's own tokenizer."""
    tokenizer = Tokenizer(folder / "tokenizer.json", max_tokens=256, vocabulary_size=10**9)
    return [len(e.ids) for e in tokenizer.encode_texts(texts, TokenizeOptions(Truncation.END))]


def check_agreement(workers: list[Worker], text: str) -> None:
    """Check that all engines give the same vector of a text, up to rounding.

    Raises:
        SystemExit: An engine gives another vector.
    """
    first = [w.ask([text], next(iter(w.best.values())))["check"] for w in workers]
    for worker, values in zip(workers, first, strict=True):
        dot = sum(a * b for a, b in zip(values, first[0], strict=True))
        norms = (sum(a * a for a in values) * sum(a * a for a in first[0])) ** 0.5
        if not dot >= MIN_COSINE * norms:
            raise SystemExit(
                f"{worker.engine.name} gives other vectors than {workers[0].engine.name}: "
                f"{values} {first[0]}"
            )


def table(title: str, workers: list[Worker], shares: dict[str, float] | None) -> str:
    """Return one table as Markdown; ratios are to the first worker."""
    base = workers[0]
    lines = [
        f"## {title}",
        "",
        f"Ratios are to {base.engine.name} (higher is faster); in brackets the spread, median over least time.",
        "",
        "| load | " + " | ".join(w.engine.name for w in workers) + " |",
        "|---|" + "---|" * len(workers),
    ]
    for load in base.seconds_per_token:
        cells = []
        for worker in workers:
            times = worker.seconds_per_token[load]
            ratio = min(base.seconds_per_token[load]) / min(times)
            spread = statistics.median(times) / min(times)
            cells.append(f"{ratio:.2f} ({spread:.2f}) {1 / min(times):,.0f} tok/s")
        lines.append(f"| {load} | " + " | ".join(cells) + " |")
    rows = {
        "single query, p50 / p99 ms": [
            " / ".join(f"{q * 1000:.1f}" for q in np.percentile(w.query_s, (50, 99)))
            for w in workers
        ],
        "peak memory, MB": [f"{w.rss_mb:,.0f}" for w in workers],
    }
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    if shares:
        by_load = ", ".join(f"{load} {share:.0%}" for load, share in shares.items())
        lines += [
            "",
            f"Nestvec's share of the machine's own limit for float32 products: {by_load}.",
        ]
    lines += ["", "Best settings found by the sweep:", ""]
    lines += [
        f"- {w.engine.name}: " + "; ".join(f"{load} {best}" for load, best in w.best.items())
        for w in workers
    ]
    return "\n".join(lines) + "\n"


def race(
    workers: list[Worker], data: Path | None, folder: Path, rounds: int
) -> dict[str, list[int]]:
    """Sweep, then run the rounds; returns the lengths in tokens of each load's last texts."""
    lengths: dict[str, list[int]] = {}
    for load in WORKLOADS:
        texts = workload_texts(load, data, seed=0)
        for worker in workers:
            sweep(worker, load, texts)
            print(f"{load}: {worker.engine.name} best at {worker.best[load]}", file=sys.stderr)
    check_agreement(workers, "This is an example sentence")
    for number in range(1, rounds + 1):
        for load in WORKLOADS:
            texts = workload_texts(load, data, seed=number)
            lengths[load] = lengths_of(texts, folder)
            for worker in workers:
                answer = worker.ask(texts, worker.best[load])
                tokens = sum(lengths[load])
                worker.seconds_per_token.setdefault(load, []).append(answer["seconds"] / tokens)
        for worker in workers:
            texts = workload_texts("short", data, seed=100 + number)[: QUERIES // rounds + 1]
            worker.query_s += worker.ask(texts, worker.best["short"], each=True)["each_s"]
        print(f"round {number} of {rounds}", file=sys.stderr)
    return lengths


def shares_of(worker: Worker, lengths: dict[str, list[int]], cores: int) -> dict[str, float]:
    """Return the share of the machine's float32 limit that our engine reached on each load, attention included."""
    package = prepare_model(load_settings({"offline": True}))
    limit = peak_gemm_flops_per_s(open_backend, cores)
    shares = {}
    for load, of_load in lengths.items():
        length = sum(n * n for n in of_load) / sum(of_load)
        config = package.folder.config
        flops = flops_per_token(package.graph, config, package.spec.hidden_size, length)
        shares[load] = flops / min(worker.seconds_per_token[load]) / limit
    return shares


def run_table(
    title: str, engines: list[Engine], arguments: argparse.Namespace, exported: Path
) -> tuple[str, dict[str, str]]:
    """Compare the engines of one table; returns the table, and the versions of the packages in it."""
    workers: list[Worker] = []
    for engine in engines:
        try:
            workers.append(start(engine, arguments.model, exported))
        except SystemExit as error:
            print(f"left out: {error}", file=sys.stderr)
    lengths = race(workers, arguments.data, arguments.model, arguments.rounds)
    ours = next((w for w in workers if w.engine.precision == "fp32" and not w.engine.is_peer), None)
    shares = shares_of(ours, lengths, usable_cpus()) if ours else None
    for worker in workers:
        worker.stop()
    return table(title, workers, shares), {k: v for w in workers for k, v in w.versions.items()}


def result_file(name: str) -> Path:
    """Return the file of this machine's results: benchmarks/results/<cpu><name>.md."""
    described = cpu_model().rsplit(", ", 1)[0].lower()
    slug = "".join(c if c.isalnum() else "-" for c in described).strip("-")
    return HERE / "results" / f"{slug}{name}.md"


def main() -> None:
    """Parse the arguments, run the benchmark, and write its report."""
    parser = parser_for(__doc__, rounds=7)
    parser.add_argument(
        "--only", default="", help="names of the engines to run, comma-separated; all by default"
    )
    arguments = parser.parse_args()
    tables: list[str] = []
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        export.main(["--padded", "--offline", scratch], standalone_mode=False)
        names = arguments.only.split(",") if arguments.only else []
        for title, engines in engines_of(usable_cpus()).items():
            chosen = [engine for engine in engines if not names or engine.name in names]
            text, of_table = run_table(title, chosen, arguments, Path(scratch))
            tables.append(text)
            versions |= of_table
    head = [
        f"# In process, {date.today().isoformat()}",  # noqa: DTZ011 - a person's date
        "",
        f"{cpu_model()}; {usable_cpus()} cores; Python {platform.python_version()}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        f"Texts in, unit vectors out, tokenizing included. {arguments.rounds} interleaved rounds, texts unique; the "
        "least time of each counts.",
        "",
    ]
    report = "\n".join([*head, *tables])
    out = arguments.out or result_file("-engine")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report, "utf-8")
    print(report)


if __name__ == "__main__":
    main()
