"""Joins abstracts, has a model find where one ends and the next begins (splitter `semantic`), and says how well.

    python -m benchmarks.segments_run --data data/titles/titles.jsonl

Each of 30 seeded joins holds 8 abstracts, drawn without replacement, with a space between them: 7 boundaries to find
among some 65 sentences. A boundary counts as found where the sentence that begins an abstract begins a chunk. Told are
precision and recall, averaged over the joins, with the half-width of a 95 % interval (1.96 standard errors).
"""

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.engine.front.chunking import chunk_documents
from nestvec.engine.observer import NullObserver
from nestvec.engine.service import EmbeddingService
from nestvec.engine.splitting import Splitter, SplitterKind
from nestvec.engine.splitting.sentences import sentences
from nestvec.engine.types import EmbedCall

JOINS: Final = 30
ABSTRACTS: Final = 8
STANDARD_ERRORS: Final = 1.96


def joined(abstracts: Sequence[str], seed: int) -> tuple[str, set[int]]:
    """Join some abstracts; returns the text and where the second and later of them begin."""
    text, edges = "", set()
    for abstract in random.Random(seed).sample(abstracts, ABSTRACTS):
        if text:
            text += " "
            edges.add(len(text))
        text += abstract
    return text, edges


def first_sentences(text: str, edges: set[int]) -> set[int]:
    """Where the sentences begin that are nearest to the edges: a sentence may hold one in its middle."""
    starts = np.array([start for start, _ in sentences(text)])
    return {int(starts[np.abs(starts - edge).argmin()]) for edge in edges}


async def scores(service: EmbeddingService, text: str, edges: set[int]) -> tuple[float, float]:
    """Precision and recall of a text's chunks."""
    call = EmbedCall([text], splits=(Splitter(SplitterKind.SEMANTIC),))
    found = {chunk.start for chunk in (await chunk_documents(service, call)).chunks} - {0}
    wanted = first_sentences(text, edges)
    hits = len(found & wanted)
    return hits / max(1, len(found)), hits / len(wanted)


async def run(service: EmbeddingService, abstracts: Sequence[str]) -> None:
    """Measure all joins, and print a line a figure."""
    rows = [await scores(service, *joined(abstracts, seed)) for seed in range(JOINS)]
    for name, values in zip(("precision", "recall"), np.array(rows).T, strict=True):
        half = STANDARD_ERRORS * values.std(ddof=1) / len(values) ** 0.5
        print(f"{name} {values.mean():.3f} ± {half:.3f}")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/titles/titles.jsonl"))
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    arguments = parser.parse_args()
    lines = arguments.data.read_text("utf-8").splitlines()
    abstracts = [row["abstract"].strip() for row in map(json.loads, lines) if row.get("abstract")]
    settings = load_settings({"model": arguments.model}).for_offline_tools()
    service = build_local_service(settings, NullObserver())
    try:
        asyncio.run(run(service, abstracts))
    finally:
        service.close()


if __name__ == "__main__":
    main()
