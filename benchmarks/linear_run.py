"""Whether `nestvec embed` is linear: ten times the texts in ten times the time, with no more memory."""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

from nestvec.assembly.service import build_engine
from nestvec.config.loading import load_settings
from nestvec.corpus.embedders import EngineEmbedder
from nestvec.corpus.run import CorpusJob, embed_corpus
from nestvec.corpus.sources import find_sources
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import NullObserver
from nestvec.tools.bench.loads import texts_of

from benchmarks.arguments import folder_if_there

FEW: Final = 10_000
TIMES: Final = 10


def write_texts(path: Path, number: int, data: Path | None) -> None:
    """So many unique short texts, one a line."""
    seed = 0
    with path.open("w", encoding="utf-8") as file:
        while number > 0:
            texts = texts_of("short", data, seed=seed)[:number]
            file.writelines(text.replace("\n", " ") + "\n" for text in texts)
            number -= len(texts)
            seed += 1


def rss_mb() -> float:
    """Memory held now."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line
    )
    return int(line.split()[1]) / 1024


def embed(service: EmbeddingService, source: Path) -> tuple[float, float]:
    """Seconds taken, and the most memory seen on the way."""
    peak_mb = 0.0

    def watch(_texts: int, _tokens: int) -> None:
        nonlocal peak_mb
        peak_mb = max(peak_mb, rss_mb())

    started = time.perf_counter()
    job = CorpusJob(find_sources([str(source)]), source.with_suffix(".parquet"))
    asyncio.run(embed_corpus(EngineEmbedder(service), job, watch))
    return time.perf_counter() - started, peak_mb


def main() -> None:
    """Run both, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=folder_if_there, help="folder with the texts")
    parser.add_argument("--precision", default="fp32")
    asked = parser.parse_args()
    flags = {"offline": True, "precision": asked.precision, "log_level": "warning"}
    service = build_engine(load_settings(flags).for_own_work(), NullObserver())
    with tempfile.TemporaryDirectory() as scratch:
        few, many = Path(scratch) / "few.txt", Path(scratch) / "many.txt"
        write_texts(few, FEW, asked.data)
        write_texts(many, FEW * TIMES, asked.data)
        embed(service, few)  # warm
        few_s, few_mb = embed(service, few)
        many_s, many_mb = embed(service, many)
    service.close()
    print(
        f"{asked.precision}: {FEW:,} texts in {few_s:.1f} s, {FEW * TIMES:,} in {many_s:.1f} s: "
        f"{many_s / few_s / TIMES:.3f} of linear; peak memory {few_mb:.0f} and {many_mb:.0f} MB"
    )


if __name__ == "__main__":
    main()
