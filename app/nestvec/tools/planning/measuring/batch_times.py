"""What one batch takes a worker, from batches of known sizes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from nestvec.engine.backend import Backend, CostModel
from nestvec.engine.core.batch_runner import run_items
from nestvec.engine.core.batching.cost_model import SOLVE_EVERY, BatchSeconds, OnlineCostModel
from nestvec.engine.types import Item
from nestvec.engine.vectors.pooler import Pooler

LENGTHS: Final = (8, 16, 32, 64, 96, 128, 192, 256, 512)
COUNTS: Final = (1, 2, 4, 8, 16)
MAX_BATCH_TOKENS: Final = 1024
ROUNDS: Final = 9
# A text is alone on a server that has been idle for some time: cores that rest wake up more slowly.
PAUSE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class BenchClock:
    """What batches are timed by.

    Attributes:
        now: Returns monotonic seconds.
        sleep: Waits for so many seconds.
    """

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class FittedTimes:
    """Times of batches.

    Attributes:
        batch: What a batch takes a worker.
        lone: What a text takes that is alone on an idle server.
        noise: Standard deviation of the logarithm of a batch's time.
        largest_tokens: Tokens of the largest batch.
        error: Median relative error of the fit over the sizes.
    """

    batch: BatchSeconds
    lone: BatchSeconds
    noise: float
    largest_tokens: int
    error: float


def fit_batch_times(
    backend: Backend,
    pricing: CostModel,
    pooler: Pooler,
    *,
    max_tokens: int,
    vocabulary_size: int,
    clock: BenchClock,
) -> FittedTimes:
    """Run batches of several sizes in turns, alone as on an idle server too, and fit what they take.

    Args:
        backend: What serves, with its wide session for lone texts where it has one.
        pricing: How it prices batches.
        pooler: What is made of token states.
        max_tokens: Most tokens of a text.
        vocabulary_size: Ids are drawn below it.
        clock: What times them.

    Raises:
        BackendError: A batch failed.
    """
    chooser = np.random.default_rng(0)
    lengths = [n for n in LENGTHS if n <= max_tokens] or [max_tokens]
    sizes = [
        (count, length)
        for length in lengths
        for count in COUNTS
        if count == 1 or count * length <= MAX_BATCH_TOKENS
    ]
    cells = [(count, length, False) for count, length in sizes]
    cells += [(1, length, True) for length in lengths]
    batches = {
        cell: [
            Item(ids=chooser.integers(0, vocabulary_size, cell[1]).astype(np.int32))
            for _ in range(cell[0])
        ]
        for cell in cells
    }
    seconds: dict[tuple[int, int, bool], list[float]] = {cell: [] for cell in cells}
    for number in range(ROUNDS + 1):
        for cell, items in batches.items():
            if cell[2]:
                clock.sleep(PAUSE_S)
            began_s = clock.now()
            run_items(backend, items, pooler, is_lone=cell[2])
            if number:  # the first round warms it up
                seconds[cell].append(clock.now() - began_s)
    medians = {cell: float(np.median(values)) for cell, values in seconds.items()}
    batch, error = _fitted(pricing, {c: s for c, s in medians.items() if not c[2]})
    lone, _ = _fitted(pricing, {c: s for c, s in medians.items() if c[2]})
    spread = [
        math.log(max(value, 1e-9) / medians[cell])
        for cell, values in seconds.items()
        for value in values
    ]
    # Not a robust measure: the few batches that take much longer are those that queues grow behind.
    noise = float(np.sqrt(np.mean(np.square(spread))))
    return FittedTimes(batch, lone, noise, max(c * n for c, n in sizes), error)


def _fitted(
    pricing: CostModel, medians: dict[tuple[int, int, bool], float]
) -> tuple[BatchSeconds, float]:
    """Fit what batches take with the cost model that servers learn with, every size counting alike."""
    model = OnlineCostModel(forgetting=1.0)
    for _round in range(SOLVE_EVERY):  # so that it solves once all have been seen equally often
        for (count, length, _), took_s in medians.items():
            model.observe(tokens=count * length, area=_area(pricing, count, length), took_s=took_s)
    fitted = model.batch_seconds or BatchSeconds(0.0, 0.0, 0.0)
    errors = [
        abs(fitted.of(count * length, _area(pricing, count, length)) - took_s) / took_s
        for (count, length, _), took_s in medians.items()
    ]
    return fitted, float(np.median(errors))


def _area(pricing: CostModel, count: int, length: int) -> float:
    """Return what attention comes to of a batch of so many texts of one length, in token equivalents."""
    return pricing(np.full(count, length, np.int64)) - count * length
