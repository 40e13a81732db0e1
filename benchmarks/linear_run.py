"""Measures whether `nestvec embed` is linear: ten times the texts in ten times the time, with no more memory."""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.corpus.embedders import EngineEmbedder
from nestvec.corpus.job import CorpusJob
from nestvec.corpus.reading.sources import find_sources
from nestvec.corpus.run import embed_corpus
from nestvec.engine.observer import NullObserver
from nestvec.engine.service import EmbeddingService
from nestvec.tools.bench.texts import workload_texts

from benchmarks.arguments import folder_if_there

FEW: Final = 10_000
TIMES: Final = 10


def write_texts(path: Path, number: int, data: Path | None) -> None:
    """Write so many unique short texts, one on each line."""
    seed = 0
    with path.open("w", encoding="utf-8") as file:
        while number > 0:
            texts = workload_texts("short", data, seed=seed)[:number]
            file.writelines(text.replace("\n", " ") + "\n" for text in texts)
            number -= len(texts)
            seed += 1


def rss_mb() -> float:
    """Return the memory that this process holds now, in MB."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line
    )
    return int(line.split()[1]) / 1024


def embed(service: EmbeddingService, source: Path) -> tuple[float, float]:
    """Embed a file; returns the seconds taken and the peak memory seen on the way, in MB."""
    peak_mb = 0.0

    def watch(_texts: int, _tokens: int) -> None:
        nonlocal peak_mb
        peak_mb = max(peak_mb, rss_mb())

    started = time.perf_counter()
    job = CorpusJob(find_sources([str(source)]), source.with_suffix(".parquet"))
    asyncio.run(embed_corpus(EngineEmbedder(service), job, watch))
    return time.perf_counter() - started, peak_mb


def main() -> None:
    """Parse the arguments, embed both files, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=folder_if_there, help="folder with the texts")
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    flags = {"offline": True, "precision": arguments.precision, "log_level": "warning"}
    service = build_local_service(load_settings(flags).for_offline_tools(), NullObserver())
    with tempfile.TemporaryDirectory() as scratch:
        few, many = Path(scratch) / "few.txt", Path(scratch) / "many.txt"
        write_texts(few, FEW, arguments.data)
        write_texts(many, FEW * TIMES, arguments.data)
        # The first run warms up.
        embed(service, few)
        few_s, few_mb = embed(service, few)
        many_s, many_mb = embed(service, many)
    service.close()
    print(
        f"{arguments.precision}: {FEW:,} texts in {few_s:.1f} s, {FEW * TIMES:,} in {many_s:.1f} s: "
        f"{many_s / few_s / TIMES:.3f} of linear; peak memory {few_mb:.0f} and {many_mb:.0f} MB"
    )


if __name__ == "__main__":
    main()
