"""The texts of a benchmark: from a folder of corpora, or made here; each text unique."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Tokens aimed at per load and round: long enough to time, short enough for many rounds.
LOADS: Final = ("short", "paragraph", "long", "mixed")
TEXTS: Final = {"short": 600, "paragraph": 80, "long": 40, "mixed": 150}
WORDS: Final = [
    "vector",
    "server",
    "request",
    "memory",
    "river",
    "market",
    "winter",
    "copper",
    "signal",
    "garden",
    "letter",
    "engine",
    "window",
    "paper",
    "bridge",
    "doctor",
    "island",
    "summer",
    "music",
    "thread",
    "kitchen",
    "number",
    "planet",
    "forest",
    "silver",
    "budget",
    "harbour",
    "metal",
]


def texts_of(load: str, data: Path | None, seed: int) -> list[str]:
    """Texts of a load, each made unique by a counter word, so that no cache can help.

    Args:
        load: One of `LOADS`.
        data: Folder with short.txt, paragraph.txt, long.txt and mix.jsonl; None makes texts.
        seed: Chooses among them.
    """
    chooser = random.Random(seed)  # noqa: S311 - variety, no secret
    pool = list(_read(load, data)) if data else [_made(load, chooser) for _ in range(TEXTS[load])]
    chosen = chooser.choices(pool, k=TEXTS[load])
    return [f"{seed}-{number} {text}" for number, text in enumerate(chosen)]


def unique_texts(load: str, number: int, data: Path | None, seed: int) -> list[str]:
    """So many texts of a load; those of two seeds differ too."""
    found: list[str] = []
    part = 0
    while len(found) < number:
        found += texts_of(load, data, seed=1000 * seed + part)
        part += 1
    return found[:number]


def _read(load: str, data: Path) -> Iterator[str]:
    if load == "mixed":
        for line in (data / "mix.jsonl").read_text("utf-8").splitlines():
            yield json.loads(line)["text"]
    else:
        yield from (data / f"{load}.txt").read_text("utf-8").splitlines()


def _made(load: str, chooser: random.Random) -> str:
    kinds = {"short": (5, 25), "paragraph": (60, 150), "long": (330, 900)}
    kind = chooser.choices(list(kinds), weights=(6, 3, 1))[0] if load == "mixed" else load
    return " ".join(chooser.choices(WORDS, k=chooser.randint(*kinds[kind])))
