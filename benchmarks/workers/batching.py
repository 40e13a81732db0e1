"""Length-sorted batches under a budget of padded tokens, for peers that leave batching to their caller."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MAX_TOKENS = 256


def batches(ids: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """Return batches of the indices of texts, longest first."""
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    batched: list[list[int]] = []
    for i in order:
        if batched and (len(batched[-1]) + 1) * len(ids[batched[-1][0]]) <= budget:
            batched[-1].append(i)
        else:
            batched.append([i])
    return batched


def run_all(
    ids: Sequence[Sequence[int]],
    budget: int,
    threads: int,
    run: Callable[[list[int]], Sequence[Any]],
) -> list[Any]:
    """Return the vectors in the texts' order; `run` gives those of a batch of indices."""
    vectors: list[Any] = [None] * len(ids)

    def run_batch(indices: list[int]) -> None:
        for index, vector in zip(indices, run(indices), strict=True):
            vectors[index] = vector

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run_batch, batches(ids, budget)))
    return vectors


def load_tokenizer(folder: str) -> Any:
    """Return the model's tokenizer, without padding, at the model's own length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
