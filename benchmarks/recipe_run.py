"""Measures a recipe that joins two models: what it finds, and what it costs beside both models alone.

    python -m benchmarks.recipe_run --data data/titles

Each title is a query, and its own abstract what is to be found among all. Costs are CPU time of this process (user and
kernel) for the same texts, in turns: both models alone, one after the other, and the recipe, call by call; the ratio of
the sums is told, for one call of many texts and for calls of one short text each.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from nestvec import Embedder
from numpy.typing import NDArray

WEIGHTS: Final = (0.8, 0.2)
DEPTH: Final = 10
# So many abstracts are one large call.
MANY: Final = 32


def recall(titles: NDArray[Any], abstracts: NDArray[Any]) -> tuple[float, float]:
    """Return how often a title's own abstract is nearest, and among the nearest ten."""
    scores = titles.astype(np.float64) @ abstracts.astype(np.float64).T
    better = (scores > np.diag(scores)[:, None]).sum(axis=1)
    return float((better == 0).mean()), float((better < DEPTH).mean())


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU seconds of all threads that work takes."""
    before = time.process_time()
    work()
    return time.process_time() - before


def ratio(pairs: Sequence[tuple[Callable[[], object], Callable[[], object]]]) -> float:
    """Return the recipe's CPU time over that of both models alone: of all pairs, each measured in turns."""
    alone_s = recipe_s = 0.0
    for number, (alone, recipe) in enumerate(pairs):
        first, second = (alone, recipe) if number % 2 else (recipe, alone)
        times = {first: cpu_s(first), second: cpu_s(second)}
        alone_s += times[alone]
        recipe_s += times[recipe]
    return recipe_s / alone_s


def measure(models: Sequence[str], rows: Sequence[dict[str, str]], rounds: int) -> None:
    """Measure, and print a line for each figure."""
    titles = [row["title"] for row in rows]
    abstracts = [row["abstract"] for row in rows]
    parts = [
        {"model": name, "weight": weight} for name, weight in zip(models, WEIGHTS, strict=True)
    ]
    recipes = {"both": {"combine": "concat", "parts": parts}}
    with Embedder(list(models), recipes=recipes) as embedder:

        def embed(model: str, texts: Sequence[str]) -> NDArray[Any]:
            return embedder.embed(texts, model=model, truncate="end")

        def work(texts: Sequence[str]) -> tuple[Callable[[], object], Callable[[], object]]:
            return lambda: [embed(name, texts) for name in models], lambda: embed("both", texts)

        embed("both", titles[:MANY])
        print(f"load average {os.getloadavg()[0]:.1f}, {rounds} rounds", flush=True)
        many = ratio([work(abstracts[:MANY])] * rounds)
        print(f"one call of {MANY} abstracts: {many:.3f} of both models alone", flush=True)
        one = ratio([work([title]) for title in titles] * rounds)
        print(f"a call a title, {len(titles)}: {one:.3f} of both models alone", flush=True)
        for name in (*models, "both"):
            first, ten = recall(embed(name, titles), embed(name, abstracts))
            print(f"{name}: R@1 {first:.3f}, R@{DEPTH} {ten:.3f}, {len(titles)} titles")


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/titles"))
    parser.add_argument("--models", nargs=2, default=["all-MiniLM-L6-v2", "static"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    lines = (arguments.data / "titles.jsonl").read_text("utf-8").splitlines()
    measure(arguments.models, [json.loads(line) for line in lines], arguments.rounds)


if __name__ == "__main__":
    main()
