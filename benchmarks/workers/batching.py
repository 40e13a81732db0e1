"""Length-sorted batches under a budget of padded tokens, for peers that leave batching to their caller."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MAX_TOKENS = 256


def batches(ids: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """Places of texts, longest first."""
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    found: list[list[int]] = []
    for i in order:
        if found and (len(found[-1]) + 1) * len(ids[found[-1][0]]) <= budget:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def run_all(
    ids: Sequence[Sequence[int]],
    budget: int,
    threads: int,
    run: Callable[[list[int]], Sequence[Any]],
) -> list[Any]:
    """Vectors in the texts' order; `run` gives those of a batch's places."""
    out: list[Any] = [None] * len(ids)

    def one(places: list[int]) -> None:
        for place, vector in zip(places, run(places), strict=True):
            out[place] = vector

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, batches(ids, budget)))
    return out


def load_tokenizer(folder: str) -> Any:
    """The model's, without its own padding, at its own length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
