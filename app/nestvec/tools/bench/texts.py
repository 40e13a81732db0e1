"""The texts of a benchmark, from a folder of corpora or made here; each text is unique."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

WORKLOADS: Final = ("short", "paragraph", "long", "mixed")
# Enough texts that a round is long enough to time, and short enough for many rounds.
TEXTS_PER_ROUND: Final = {"short": 600, "paragraph": 80, "long": 40, "mixed": 150}
# fmt: off
WORDS: Final = (
    "vector", "server", "request", "memory", "river", "market", "winter", "copper",
    "signal", "garden", "letter", "engine", "window", "paper", "bridge", "doctor",
    "island", "summer", "music", "thread", "kitchen", "number", "planet", "forest",
    "silver", "budget", "harbour", "metal",
)
# fmt: on


def workload_texts(workload: str, data: Path | None, seed: int) -> list[str]:
    """Return the texts of a workload, each made unique by a counter word, so that no cache can help.

    Args:
        workload: One of `WORKLOADS`.
        data: Folder with short.txt, paragraph.txt, long.txt and mix.jsonl; None makes texts.
        seed: Seed of the choice among them.
    """
    chooser = random.Random(seed)  # noqa: S311 - variety, no secret
    count = TEXTS_PER_ROUND[workload]
    pool = (
        list(_read(workload, data))
        if data
        else [_random_text(workload, chooser) for _ in range(count)]
    )
    texts = chooser.choices(pool, k=count)
    return [f"{seed}-{number} {text}" for number, text in enumerate(texts)]


def unique_texts(workload: str, count: int, data: Path | None, seed: int) -> list[str]:
    """Return a number of texts of a workload; those of two seeds differ too."""
    texts: list[str] = []
    part = 0
    while len(texts) < count:
        texts += workload_texts(workload, data, seed=1000 * seed + part)
        part += 1
    return texts[:count]


def _read(workload: str, data: Path) -> Iterator[str]:
    """Yield the texts of a workload from a folder."""
    if workload == "mixed":
        for line in (data / "mix.jsonl").read_text("utf-8").splitlines():
            yield json.loads(line)["text"]
    else:
        yield from (data / f"{workload}.txt").read_text("utf-8").splitlines()


def _random_text(workload: str, chooser: random.Random) -> str:
    """Return a text of random words, as long as the workload's texts are."""
    lengths = {"short": (5, 25), "paragraph": (60, 150), "long": (330, 900)}
    kind = workload
    if workload == "mixed":
        kind = chooser.choices(list(lengths), weights=(6, 3, 1))[0]
    return " ".join(chooser.choices(WORDS, k=chooser.randint(*lengths[kind])))
