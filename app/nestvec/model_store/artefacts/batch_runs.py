"""Runs batches of items on several threads at once, for what is computed before a model serves: probes, calibration."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nestvec.engine.types import Item
from nestvec.model_store.preparation import Advance, count_nothing

Result = TypeVar("Result")


def batches_by_length(
    items: Sequence[Item], max_tokens: int, max_mixed_tokens: int | None
) -> list[list[Item]]:
    """Sort items by length and cut them into batches, as they would be in service.

    Args:
        items: The items.
        max_tokens: Most tokens of a batch; an item of more is alone in its batch.
        max_mixed_tokens: Items of more tokens share a batch with those of their own length only; None for no bound.
    """
    batches: list[list[Item]] = []
    batch_tokens, longest = max_tokens, 0
    for item in sorted(items, key=lambda item: item.tokens):
        is_mixed = item.tokens == longest or item.tokens <= (max_mixed_tokens or math.inf)
        if not is_mixed or batch_tokens + item.tokens > max_tokens:
            batches.append([])
            batch_tokens = 0
        batches[-1].append(item)
        batch_tokens, longest = batch_tokens + item.tokens, item.tokens
    return batches


def run_batches(
    batches: Sequence[Sequence[Item]],
    run: Callable[[Sequence[Item]], Result],
    threads: int = 1,
    advance: Advance = count_nothing,
) -> list[Result]:
    """Run batches, those of most tokens first, so that threads end at about the same time.

    The batches are the same for any number of threads, and so is what they give.

    Args:
        batches: Items of each batch.
        run: Runs one; called from several threads at once.
        threads: How many.
        advance: Told, by the calling thread, how many items are done.

    Returns:
        What each batch gave, in the order of `batches`.

    Raises:
        Exception: What `run` raised first; batches that had not begun by then never do.
    """
    failures: list[BaseException] = []

    def run_unless_failed(number: int) -> Result:
        # A thread takes its next batch before the caller of `map` can cancel it.
        if failures:
            raise failures[0]
        try:
            return run(batches[number])
        except BaseException as error:
            failures.append(error)
            raise

    order = sorted(range(len(batches)), key=lambda n: -sum(item.tokens for item in batches[n]))
    results: dict[int, Result] = {}
    with ThreadPoolExecutor(max(1, min(threads, len(batches))), "prepare") as pool:
        done = pool.map(run_unless_failed, order)
        for number, result in zip(order, done, strict=True):
            results[number] = result
            advance(len(batches[number]))
    return [results[number] for number in range(len(batches))]
