"""The engine in this process: throughput by load, latency of single queries, share of the machine's limit."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, Priority, Truncation
from nestvec.tools.bench.loads import LOADS, texts_of

CHUNK_TEXTS: Final = 1024
QUERIES: Final = 200


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """One load.

    Attributes:
        seconds: Of each round.
        tokens: Of each round.
        mean_length: Tokens of the token's own text, on average: what attention sees.
    """

    load: str
    texts: int
    tokens: int
    seconds: tuple[float, ...]
    mean_length: float

    @property
    def tokens_per_s(self) -> float:
        """Of the best round."""
        return self.tokens / min(self.seconds)


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """All loads and single queries."""

    loads: tuple[LoadFigures, ...]
    query_s: Sequence[float] = field(default_factory=tuple)


async def measure_engine(service: EmbeddingService, rounds: int) -> EngineFigures:
    """Run every load some times, texts unique; then short queries one by one on the idle engine."""
    loads = [await _measure_load(service, load, rounds) for load in LOADS]
    queries = texts_of("short", None, seed=rounds + 1)[:QUERIES]
    query_s = []
    for text in queries:
        started = time.perf_counter()
        await service.embed(EmbedCall([text], truncate=Truncation.END))
        query_s.append(time.perf_counter() - started)
    return EngineFigures(tuple(loads), query_s)


async def _measure_load(service: EmbeddingService, load: str, rounds: int) -> LoadFigures:
    best: LoadFigures | None = None
    seconds: list[float] = []
    for number in range(rounds):
        texts = texts_of(load, None, seed=number)
        started = time.perf_counter()
        lengths = await _embed_all(service, texts)
        seconds.append((time.perf_counter() - started) / lengths.sum())
        best = LoadFigures(
            load,
            len(texts),
            int(lengths.sum()),
            tuple(s * lengths.sum() for s in seconds),
            float((lengths**2).sum() / lengths.sum()),
        )
    if best is None:
        raise ValueError("at least one round")
    return best


async def _embed_all(service: EmbeddingService, texts: Sequence[str]) -> np.ndarray:
    """Tokens of each text, once all are embedded."""
    calls = (
        EmbedCall(texts[i : i + CHUNK_TEXTS], truncate=Truncation.END, priority=Priority.BULK)
        for i in range(0, len(texts), CHUNK_TEXTS)
    )
    answers = await asyncio.gather(*(service.embed(call) for call in calls))
    return np.array([n for answer in answers for n in answer.input_tokens], np.int64)
