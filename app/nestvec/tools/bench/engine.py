"""Measures the engine in this process: throughput by workload, and the latency of single queries."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, Priority, Truncation
from nestvec.tools.bench.texts import WORKLOADS, workload_texts

CHUNK_TEXTS: Final = 1024
QUERIES: Final = 200


@dataclass(frozen=True, slots=True)
class WorkloadFigures:
    """What was measured of one workload.

    Attributes:
        workload: Name of the workload.
        texts: Number of texts in a round.
        tokens: Number of tokens in the last round.
        seconds: Seconds of each round, scaled to that number of tokens.
        mean_length: Length in tokens of the text that a token stands in, on average: what attention sees.
    """

    workload: str
    texts: int
    tokens: int
    seconds: tuple[float, ...]
    mean_length: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of the best round."""
        return self.tokens / min(self.seconds)


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What was measured of all workloads and of single queries.

    Attributes:
        workloads: Figures of each workload.
        query_s: Seconds of each short query on the idle engine.
    """

    workloads: tuple[WorkloadFigures, ...]
    query_s: Sequence[float] = field(default_factory=tuple)


async def measure_engine(service: EmbeddingService, rounds: int) -> EngineFigures:
    """Run every workload in some rounds, all texts unique; then short queries one by one on the idle engine."""
    workloads = [await _measure_workload(service, workload, rounds) for workload in WORKLOADS]
    queries = workload_texts("short", None, seed=rounds + 1)[:QUERIES]
    query_s = []
    for text in queries:
        started = time.perf_counter()
        await service.embed(EmbedCall([text], truncate=Truncation.END))
        query_s.append(time.perf_counter() - started)
    return EngineFigures(tuple(workloads), query_s)


async def _measure_workload(
    service: EmbeddingService, workload: str, rounds: int
) -> WorkloadFigures:
    """Embed a workload in some rounds, each of texts of its own.

    Raises:
        ValueError: There are no rounds.
    """
    figures: WorkloadFigures | None = None
    seconds_per_token: list[float] = []
    for number in range(rounds):
        texts = workload_texts(workload, None, seed=number)
        started = time.perf_counter()
        lengths = await _embed_all(service, texts)
        seconds_per_token.append((time.perf_counter() - started) / lengths.sum())
        figures = WorkloadFigures(
            workload,
            len(texts),
            int(lengths.sum()),
            tuple(seconds * lengths.sum() for seconds in seconds_per_token),
            float((lengths**2).sum() / lengths.sum()),
        )
    if figures is None:
        raise ValueError("at least one round")
    return figures


async def _embed_all(service: EmbeddingService, texts: Sequence[str]) -> NDArray[np.int64]:
    """Embed texts at once, and return the number of tokens of each, `[N]`."""
    calls = (
        EmbedCall(
            texts[start : start + CHUNK_TEXTS], truncate=Truncation.END, priority=Priority.BULK
        )
        for start in range(0, len(texts), CHUNK_TEXTS)
    )
    results = await asyncio.gather(*(service.embed(call) for call in calls))
    return np.array([count for result in results for count in result.input_tokens], np.int64)
