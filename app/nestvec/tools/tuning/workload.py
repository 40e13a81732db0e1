"""Batches to time: items of typical lengths, cut as the server cuts them, run by threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import Item
from nestvec.engine.vectors.pooler import Pooler

Clock = Callable[[], float]
LONG_TOKENS: Final = 256


def typical_items(
    tokens: int, max_tokens: int, vocabulary_size: int, *, seed: int, longest: int = LONG_TOKENS
) -> list[Item]:
    """Make items of a retrieval server's mix: 60 % short texts, 30 % paragraphs, 10 % of full length.

    Args:
        tokens: Number of tokens of all items together, about.
        max_tokens: Most tokens that the model takes of one input.
        vocabulary_size: Ids are drawn below it; which ones does not matter for speed.
        seed: Chooses lengths and ids.
        longest: Most tokens of a long item; long ones have from `LONG_TOKENS` to this many.
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


def cut_batches(items: Sequence[Item], backend: Backend, budget: float) -> list[list[Item]]:
    """Cut items into batches within a budget of token equivalents, longest first, as from a deep queue.

    Inputs that are too long to share a batch with others share one with those of their own length only, as there.
    """
    max_mixed_tokens = backend.info.max_mixed_tokens
    order = sorted(items, key=lambda item: -item.tokens)
    lengths = np.array([item.tokens for item in order], np.int64)
    batches: list[list[Item]] = []
    start = 0
    while start < len(order):
        left = lengths[start:]
        if max_mixed_tokens is not None and left[0] > max_mixed_tokens:
            left = left[left == left[0]]
        count = _count_within(left, backend, budget)
        batches.append(order[start : start + count])
        start += count
    return batches


def _count_within(lengths: NDArray[np.int64], backend: Backend, budget: float) -> int:
    """Return how many leading inputs fit into the budget, at least one; costs rise with each, so it is searched."""
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


def time_batches(
    backend: Backend, batches: Sequence[Sequence[Item]], threads: int, clock: Clock
) -> float:
    """Return the seconds that so many threads take to run all batches.

    Raises:
        BackendError: A batch failed.
    """
    started_s = clock()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda batch: raw_vectors(backend, batch, Pooler("mean")), batches):
            pass
    return clock() - started_s
