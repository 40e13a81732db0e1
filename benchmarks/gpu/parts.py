"""Measures one graph in process: parity, speed by budget, packed against padded, latency."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from nestvec.engine.backend import Backend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import Item
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.tools.tuning.workload import Clock, cut_batches, time_batches
from numpy.typing import NDArray

from benchmarks.models import Sizes

ROUNDS: Final = 3
WORKERS: Final = 3
# Inputs of a padded batch; the best counts.
PADDED_BATCHES: Final = (16, 64, 256)
# Tokens of the longest inputs of a retrieval server.
LONGEST_TOKENS: Final = 512


def items_of_length(count: int, length: int, vocabulary: int, seed: int) -> list[Item]:
    """Make items that all have the same length."""
    random = np.random.default_rng(seed)
    return [Item(random.integers(5, vocabulary, length).astype(np.int32)) for _ in range(count)]


def lengths_of(items: Sequence[Item]) -> NDArray[np.int64]:
    """Return the number of tokens of each item, (n,), int64."""
    return np.fromiter((item.tokens for item in items), np.int64, len(items))


@dataclass(frozen=True, slots=True)
class Parity:
    """How a backend's vectors compare with those of the fp32 graph on the CPU.

    Attributes:
        min_cosine: Cosine of the worst text.
        mean_cosine: Mean cosine of all texts.
        max_difference: Largest difference between a value of a text's vector alone and among others.
        texts: Number of texts.
    """

    min_cosine: float
    mean_cosine: float
    max_difference: float
    texts: int


def unit_vectors(
    backend: Backend, pooler: Pooler, batches: Sequence[Sequence[Item]]
) -> NDArray[np.float32]:
    """Return the vectors of batches as they leave the server, of length 1, (n, D), float32."""
    raw = np.concatenate([raw_vectors(backend, batch, pooler) for batch in batches])
    return finish(raw, dimensions=None, normalize=True)


def parity(
    backend: Backend, expected: NDArray[np.float32], pooler: Pooler, items: Sequence[Item]
) -> Parity:
    """Compare the vectors of varied items, run together and alone, with those expected, (n, D), float32."""
    together = [items[start : start + 50] for start in range(0, len(items), 50)]
    vectors = unit_vectors(backend, pooler, together)
    alone = unit_vectors(backend, pooler, [[item] for item in items])
    cosines = (vectors.astype(np.float64) * expected).sum(axis=1)
    # A vector that is no number is nothing like the one expected.
    cosines = np.nan_to_num(cosines, nan=-1.0)
    difference = float(np.nan_to_num(np.abs(alone - vectors), nan=2.0).max())
    return Parity(float(cosines.min()), float(cosines.mean()), difference, len(items))


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed with one budget.

    Attributes:
        tokens_per_s: Tokens a second.
        share: Share of the measured dense peak; 0 where that is unknown.
    """

    tokens_per_s: float
    share: float


def speed(
    backend: Backend,
    items: Sequence[Item],
    budget: float,
    sizes: Sizes,
    peak: float,
    *,
    clock: Clock = time.perf_counter,
) -> Speed:
    """Measure tokens a second in batches of a budget, run by several workers, in the best of several rounds."""
    batches = cut_batches(items, backend, min(budget, backend.info.max_cost))
    time_batches(backend, batches[:WORKERS], WORKERS, clock)
    took_s = min(time_batches(backend, batches, WORKERS, clock) for _ in range(ROUNDS))
    lengths = lengths_of(items)
    share = sizes.operations(lengths) / took_s / peak if peak else 0.0
    return Speed(float(lengths.sum()) / took_s, share)


def as_padded(items: Sequence[Item], batch_items: int, *, is_sorted: bool) -> list[list[Item]]:
    """Make batches as a server that pads would: every input is as long as the longest beside it."""
    order = sorted(items, key=lambda item: -item.tokens) if is_sorted else list(items)
    batches = []
    for start in range(0, len(order), batch_items):
        batch = order[start : start + batch_items]
        longest = max(item.tokens for item in batch)
        batches.append([replace(i, ids=np.resize(i.ids, longest)) for i in batch])
    return batches


def padded_tokens_per_s(
    backend: Backend,
    items: Sequence[Item],
    budget: float,
    *,
    is_sorted: bool,
    clock: Clock = time.perf_counter,
) -> float:
    """Measure tokens a second, padding not counted, of padded batches of the best of several sizes."""
    best = 0.0
    real = float(lengths_of(items).sum())
    for count in PADDED_BATCHES:
        batches = as_padded(items, count, is_sorted=is_sorted)
        if max(len(b) * b[0].tokens for b in batches) > max(4 * budget, 512):
            continue
        time_batches(backend, batches[:WORKERS], WORKERS, clock)
        best = max(best, real / time_batches(backend, batches, WORKERS, clock))
    return best


def latency_s(
    backend: Backend, pooler: Pooler, item: Item, runs: int, clock: Clock = time.perf_counter
) -> tuple[float, float]:
    """Return the median and the 99th percentile of the seconds that one input takes alone."""
    took_s = []
    for _ in range(runs):
        started = clock()
        raw_vectors(backend, [item], pooler, is_lone=True)
        took_s.append(clock() - started)
    return float(np.median(took_s)), float(np.percentile(took_s, 99))


def batch_s(backend: Backend, items: Sequence[Item], runs: int, clock: Clock) -> float:
    """Return the least seconds of so many runs of one batch, waited for one after the other."""
    pooler = Pooler(backend.info.pooling or "mean")
    raw_vectors(backend, items, pooler)
    least = float("inf")
    for _ in range(runs):
        started = clock()
        raw_vectors(backend, items, pooler)
        least = min(least, clock() - started)
    return least
