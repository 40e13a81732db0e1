"""What is measured of one model in process: parity, speed by budget, packed against padded, latency, memory."""

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
from nestvec.engine.vectors.pooler import Outputs
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import BackendMemoryError
from nestvec.tools.tuning.workload import Clock, cut, seconds_for
from numpy.typing import NDArray

from benchmarks.gpu.models import Sizes

ROUNDS: Final = 3
MOST_ITEMS: Final = 4096
LONG_KINDS: Final = 2  # of four: all as long as the longest
WORKERS: Final = 3
# What a retrieval server's longest inputs have.
LONGEST_TOKENS: Final = 512


def items_of_length(count: int, length: int, vocabulary: int, seed: int) -> list[Item]:
    """Items that are all as long."""
    random = np.random.default_rng(seed)
    return [Item(random.integers(5, vocabulary, length).astype(np.int32)) for _ in range(count)]


def lengths_of(items: Sequence[Item]) -> NDArray[np.int64]:
    """Tokens of each."""
    return np.fromiter((item.tokens for item in items), np.int64, len(items))


@dataclass(frozen=True, slots=True)
class Parity:
    """Vectors of a backend beside the fp32 CPU graph's.

    Attributes:
        least: Cosine of the worst text.
        alone: Largest difference between a text's vector alone and among others.
    """

    least: float
    mean: float
    alone: float
    texts: int


def parity(backend: Backend, reference: Backend, outputs: Outputs, items: Sequence[Item]) -> Parity:
    """Compare vectors of varied items, run together and alone."""

    def unit(own: Backend, batches: Sequence[Sequence[Item]]) -> NDArray[np.float32]:
        raw = np.concatenate([raw_vectors(own, batch, outputs) for batch in batches])
        return finish(raw, dimensions=None, normalize=True)

    together = [items[start : start + 50] for start in range(0, len(items), 50)]
    found = unit(backend, together)
    alone = unit(backend, [[item] for item in items[:100]])
    expected = unit(reference, [[item] for item in items])
    near = (found.astype(np.float64) * expected).sum(axis=1)
    apart = float(np.abs(alone - found[: len(alone)]).max())
    return Parity(float(near.min()), float(near.mean()), apart, len(items))


@dataclass(frozen=True, slots=True)
class Speed:
    """One way of running items.

    Attributes:
        share: Of the measured dense peak.
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
    """Tokens a second in batches of a budget, by some workers, at the best of some rounds."""
    batches = cut(items, backend, min(budget, backend.max_cost))
    seconds_for(backend, batches[:WORKERS], WORKERS, clock)
    took_s = min(seconds_for(backend, batches, WORKERS, clock) for _ in range(ROUNDS))
    lengths = lengths_of(items)
    share = sizes.operations(lengths) / took_s / peak if peak else 0.0
    return Speed(float(lengths.sum()) / took_s, share)


def as_padded(items: Sequence[Item], batch_items: int, *, is_sorted: bool) -> list[list[Item]]:
    """Batches as a server makes them that pads: every input as long as the longest beside it, by the same kernels."""
    order = sorted(items, key=lambda item: -item.tokens) if is_sorted else list(items)
    found = []
    for start in range(0, len(order), batch_items):
        batch = order[start : start + batch_items]
        longest = max(item.tokens for item in batch)
        found.append([replace(i, ids=np.resize(i.ids, longest)) for i in batch])
    return found


def padded_tokens_per_s(
    backend: Backend,
    items: Sequence[Item],
    budget: float,
    *,
    is_sorted: bool,
    clock: Clock = time.perf_counter,
) -> float:
    """Real tokens a second where batches are padded, at the best of some sizes."""
    best = 0.0
    real = float(lengths_of(items).sum())
    for count in (8, 16, 32, 64, 128, 256):
        batches = as_padded(items, count, is_sorted=is_sorted)
        if max(len(b) * b[0].tokens for b in batches) > max(4 * budget, 512):
            continue
        seconds_for(backend, batches[:WORKERS], WORKERS, clock)
        took_s = min(seconds_for(backend, batches, WORKERS, clock) for _ in range(ROUNDS))
        best = max(best, real / took_s)
    return best


def latency_s(
    backend: Backend, outputs: Outputs, item: Item, runs: int, clock: Clock = time.perf_counter
) -> tuple[float, float]:
    """Median and 99th percentile of one input alone."""
    took = []
    for _ in range(runs):
        started = clock()
        raw_vectors(backend, [item], outputs, is_lone=True)
        took.append(clock() - started)
    return float(np.median(took)), float(np.percentile(took, 99))


@dataclass(slots=True)
class Endurance:
    """Adversarial lengths for a while.

    Attributes:
        shortages: Batches that did not fit and were split.
        failures: Batches that failed otherwise; must be none.
    """

    batches: int = 0
    shortages: int = 0
    failures: int = 0


def endure(
    backend: Backend, max_tokens: int, vocabulary: int, budget: float, seconds: float
) -> Endurance:
    """Batches of every shape, up to what memory is said to hold, by several threads: no shape may end the process."""
    found, lock = Endurance(), threading.Lock()
    until = time.monotonic() + seconds

    def run(items: list[Item]) -> None:
        try:
            raw_vectors(backend, items, Outputs(backend.pooling or "mean"))
            with lock:
                found.batches += 1
        except BackendMemoryError:
            with lock:
                found.shortages += 1
            if len(items) > 1:
                run(items[: len(items) // 2])
                run(items[len(items) // 2 :])
        except Exception:  # noqa: BLE001 - counted, and shown
            with lock:
                found.failures += 1

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        while time.monotonic() < until:
            kind = random.integers(4)
            longest = max_tokens if kind == 0 else int(random.integers(1, max_tokens + 1))
            items: list[Item] = []
            cost = 0.0
            while cost < budget and len(items) < MOST_ITEMS:
                length = longest if kind < LONG_KINDS else int(random.integers(1, longest + 1))
                items.append(Item(random.integers(5, vocabulary, length).astype(np.int32)))
                cost += max(length, 8)
            run(items)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))
    return found
