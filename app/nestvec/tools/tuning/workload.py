"""Batches to time: items of typical lengths, cut as the server cuts them, run by threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import Item
from nestvec.engine.vectors.pooler import Outputs

Clock = Callable[[], float]
LONG_TOKENS: Final = 256


def typical_items(
    tokens: int, max_tokens: int, vocabulary_size: int, *, seed: int, longest: int = LONG_TOKENS
) -> list[Item]:
    """Items of a retrieval server's mix: 60% short texts, 30% paragraphs, 10% of full length.

    Args:
        tokens: How many in all, about.
        max_tokens: The model's most for one input.
        vocabulary_size: Ids are drawn below it; what they say does not matter for speed.
        seed: Chooses lengths and ids.
        longest: Tokens of the longest; long ones have as many as the default, or more.
    """
    random = np.random.default_rng(seed)
    items: list[Item] = []
    total = 0
    while total < tokens or not items:
        kind = random.random()
        low, high = (8, 24) if kind < 0.6 else (120, 180) if kind < 0.9 else (LONG_TOKENS, longest)  # noqa: PLR2004 - the mix
        length = min(int(random.integers(low, high + 1)), max_tokens)
        items.append(Item(ids=random.integers(0, vocabulary_size, length).astype(np.int32)))
        total += length
    return items


def cut(items: Sequence[Item], backend: Backend, budget: float) -> list[list[Item]]:
    """Batches within the budget, longest first, as from a deep queue."""
    order = sorted(items, key=lambda item: -item.tokens)
    lengths = np.array([item.tokens for item in order], np.int64)
    batches: list[list[Item]] = []
    start = 0
    while start < len(order):
        count = _most(lengths[start:], backend, budget)
        batches.append(order[start : start + count])
        start += count
    return batches


def _most(lengths: NDArray[np.int64], backend: Backend, budget: float) -> int:
    """How many leading inputs fit into the budget, at least one: costs rise with each."""
    low, high = 1, 2
    while high <= len(lengths) and backend.cost(lengths[:high]) <= budget:
        low, high = high, 2 * high
    high = min(high, len(lengths) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if backend.cost(lengths[:middle]) <= budget:
            low = middle
        else:
            high = middle
    return low


def seconds_for(
    backend: Backend, batches: Sequence[Sequence[Item]], threads: int, clock: Clock
) -> float:
    """Time that threads take to run all batches.

    Raises:
        BackendError: A batch failed.
    """
    started = clock()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda batch: raw_vectors(backend, batch, Outputs("mean")), batches):
            pass
    return clock() - started
