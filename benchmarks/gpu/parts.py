"""Measures one model in process: parity, speed by budget, packed against padded, latency, memory."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from nestvec.engine.backend import Backend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import Item
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import BackendMemoryError
from nestvec.tools.tuning.workload import Clock, cut_batches, time_batches
from numpy.typing import NDArray

from benchmarks.models import Sizes

ROUNDS: Final = 3
MAX_ITEMS: Final = 4096
# Of four kinds of adversarial batches, so many have inputs that are all as long as the longest.
LONG_KINDS: Final = 2
WORKERS: Final = 3
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


def parity(backend: Backend, reference: Backend, pooler: Pooler, items: Sequence[Item]) -> Parity:
    """Compare the vectors of varied items, run together and alone."""

    def unit_vectors(of: Backend, batches: Sequence[Sequence[Item]]) -> NDArray[np.float32]:
        raw = np.concatenate([raw_vectors(of, batch, pooler) for batch in batches])
        return finish(raw, dimensions=None, normalize=True)

    together = [items[start : start + 50] for start in range(0, len(items), 50)]
    vectors = unit_vectors(backend, together)
    alone = unit_vectors(backend, [[item] for item in items[:100]])
    expected = unit_vectors(reference, [[item] for item in items])
    cosines = (vectors.astype(np.float64) * expected).sum(axis=1)
    difference = float(np.abs(alone - vectors[: len(alone)]).max())
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
    for count in (8, 16, 32, 64, 128, 256):
        batches = as_padded(items, count, is_sorted=is_sorted)
        if max(len(b) * b[0].tokens for b in batches) > max(4 * budget, 512):
            continue
        time_batches(backend, batches[:WORKERS], WORKERS, clock)
        took_s = min(time_batches(backend, batches, WORKERS, clock) for _ in range(ROUNDS))
        best = max(best, real / took_s)
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


@dataclass(slots=True)
class Endurance:
    """What became of batches of adversarial lengths.

    Attributes:
        batches: Number of batches that ran.
        shortages: Number of batches that did not fit and were split.
        failures: Number of batches that failed otherwise; must be 0.
    """

    batches: int = 0
    shortages: int = 0
    failures: int = 0


def endure(
    backend: Backend, max_tokens: int, vocabulary: int, budget: float, seconds: float
) -> Endurance:
    """Run batches of every shape up to a budget in several threads, for so many seconds: none may end the process."""
    result, lock = Endurance(), threading.Lock()
    until = time.monotonic() + seconds

    def run(items: list[Item]) -> None:
        try:
            raw_vectors(backend, items, Pooler(backend.info.pooling or "mean"))
            with lock:
                result.batches += 1
        except BackendMemoryError:
            with lock:
                result.shortages += 1
            if len(items) > 1:
                run(items[: len(items) // 2])
                run(items[len(items) // 2 :])
        except Exception:  # noqa: BLE001 - counted, and shown
            with lock:
                result.failures += 1

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        while time.monotonic() < until:
            kind = random.integers(4)
            longest = max_tokens if kind == 0 else int(random.integers(1, max_tokens + 1))
            items: list[Item] = []
            cost = 0.0
            while cost < budget and len(items) < MAX_ITEMS:
                length = longest if kind < LONG_KINDS else int(random.integers(1, longest + 1))
                items.append(Item(random.integers(5, vocabulary, length).astype(np.int32)))
                cost += max(length, 8)
            run(items)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))
    return result
