"""Callers that never give up, and check every answer they get."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np

from tests.support.tiny import WORDS

RETRIABLE = (429, 500, 502, 503, 504)
TOLERANCE = 1e-5


def texts(count: int, seed: int = 0, longest: int = 40) -> list[str]:
    """Unique ones of words that the tiny tokenizer knows, and numbers."""
    chooser = random.Random(seed)
    return [
        " ".join([*chooser.choices(WORDS, k=chooser.randrange(1, longest)), str(n)])
        for n in range(count)
    ]


async def truth(client: httpx.AsyncClient, given: Sequence[str]) -> np.ndarray:
    """Their vectors, while nothing disturbs."""
    rows = []
    for start in range(0, len(given), 50):
        answer = await client.post("/v1/embeddings", json={"input": given[start : start + 50]})
        answer.raise_for_status()
        rows += [row["embedding"] for row in answer.json()["data"]]
    return np.array(rows)


@dataclass
class Seen:
    """What callers met.

    Attributes:
        statuses: Of answers; 0 where the connection broke.
        wrong: Answers with other vectors than the truth.
        misshapen: Errors that are not of their dialect's shape, or promise nothing.
        longest_s: An answer took.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    misshapen: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    first_good_after: list[float] = field(default_factory=list)

    def note_error(self, path: str, answer: httpx.Response) -> None:
        """Any error must be retriable, say when, and have its dialect's shape."""
        body = answer.json()
        has_shape = isinstance(body["error"], str if path == "/embed" else dict)
        may_retry = (
            answer.status_code in RETRIABLE and answer.headers.get("x-should-retry") != "false"
        )
        says_when = (
            answer.status_code not in (429, 503) or 1 <= int(answer.headers["retry-after"]) <= 120
        )
        if not (has_shape and may_retry and says_when):
            self.misshapen.append(f"{path} {answer.status_code} {answer.text[:200]}")


async def call_until(
    client: httpx.AsyncClient,
    given: Sequence[str],
    vectors: np.ndarray,
    stop: asyncio.Event,
    seen: Seen,
    seed: int,
) -> None:
    """One caller: a request after the other, each of some of the texts, in one of two dialects."""
    chooser = random.Random(seed)
    while not stop.is_set():
        chosen = chooser.sample(range(len(given)), chooser.choice((1, 1, 2, 8)))
        inputs = [given[n] for n in chosen]
        path = chooser.choice(("/v1/embeddings", "/embed"))
        body = {"input": inputs} if path != "/embed" else {"inputs": inputs}
        began = time.monotonic()
        try:
            answer = await client.post(path, json=body)
        except httpx.TransportError:
            seen.statuses[0] += 1
            await asyncio.sleep(0.05)
            continue
        seen.longest_s = max(seen.longest_s, time.monotonic() - began)
        seen.statuses[answer.status_code] += 1
        if answer.status_code != httpx.codes.OK:
            seen.note_error(path, answer)
            await asyncio.sleep(0.05)
            continue
        found = answer.json()
        rows = found if path == "/embed" else [row["embedding"] for row in found["data"]]
        if np.abs(np.array(rows) - vectors[chosen]).max() > TOLERANCE:
            seen.wrong += 1
