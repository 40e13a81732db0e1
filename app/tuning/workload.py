"""Batches to time: items of typical lengths, cut as the server cuts them, run by threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from app.engine.backend import Backend
from app.engine.forward import raw_vectors
from app.engine.outputs import Outputs
from app.engine.types import Item

Clock = Callable[[], float]


def typical_items(tokens: int, max_tokens: int, vocabulary_size: int, *, seed: int) -> list[Item]:
    """Items of a retrieval server's mix: 60% short texts, 30% paragraphs, 10% of full length.

    Args:
        tokens: How many in all, about.
        max_tokens: The model's most for one input.
        vocabulary_size: Ids are drawn below it; what they say does not matter for speed.
        seed: Chooses lengths and ids.
    """
    random = np.random.default_rng(seed)
    items: list[Item] = []
    total = 0
    while total < tokens or not items:
        kind = random.random()
        low, high = (8, 24) if kind < 0.6 else (120, 180) if kind < 0.9 else (256, 256)  # noqa: PLR2004 - the mix
        length = min(int(random.integers(low, high + 1)), max_tokens)
        items.append(Item(ids=random.integers(0, vocabulary_size, length).astype(np.int32)))
        total += length
    return items


def cut(items: Sequence[Item], backend: Backend, budget: float) -> list[list[Item]]:
    """Batches within the budget, longest first, as from a deep queue."""
    batches: list[list[Item]] = []
    lengths: list[int] = []
    for item in sorted(items, key=lambda item: -item.tokens):
        lengths.append(item.tokens)
        if batches and backend.cost(np.array(lengths, np.int64)) <= budget:
            batches[-1].append(item)
        else:
            batches.append([item])
            lengths = [item.tokens]
    return batches


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
