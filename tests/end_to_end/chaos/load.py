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
    """Unique texts of words that the tiny tokenizer knows, each with a number."""
    chooser = random.Random(seed)
    return [
        " ".join([*chooser.choices(WORDS, k=chooser.randrange(1, longest)), str(n)])
        for n in range(count)
    ]


async def truth(client: httpx.AsyncClient, inputs: Sequence[str]) -> np.ndarray:
    """Vectors of some texts [N, D], embedded while nothing disturbs the server."""
    rows = []
    for start in range(0, len(inputs), 50):
        answer = await client.post("/v1/embeddings", json={"input": inputs[start : start + 50]})
        answer.raise_for_status()
        rows += [row["embedding"] for row in answer.json()["data"]]
    return np.array(rows)


@dataclass
class Seen:
    """What callers have met.

    Attributes:
        statuses: How often each status was answered; 0 where the connection broke.
        wrong: How many answers had other vectors than the truth.
        misshapen: Errors that do not have the shape of their dialect, or do not say when to come again.
        longest_s: The longest time that an answer took.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    misshapen: list[str] = field(default_factory=list)
    longest_s: float = 0.0

    def note_error(self, path: str, answer: httpx.Response) -> None:
        """Note an error that is not retriable, does not say when to come again, or lacks the shape of its dialect."""
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
    known_texts: Sequence[str],
    vectors: np.ndarray,
    stop: asyncio.Event,
    seen: Seen,
    seed: int,
) -> None:
    """Call as one caller: one request after the other, each of some of the texts, in one of two dialects."""
    chooser = random.Random(seed)
    while not stop.is_set():
        indices = chooser.sample(range(len(known_texts)), chooser.choice((1, 1, 2, 8)))
        inputs = [known_texts[n] for n in indices]
        path = chooser.choice(("/v1/embeddings", "/embed"))
        body = {"input": inputs} if path != "/embed" else {"inputs": inputs}
        started = time.monotonic()
        try:
            answer = await client.post(path, json=body)
        except httpx.TransportError:
            seen.statuses[0] += 1
            await asyncio.sleep(0.05)
            continue
        seen.longest_s = max(seen.longest_s, time.monotonic() - started)
        seen.statuses[answer.status_code] += 1
        if answer.status_code != httpx.codes.OK:
            seen.note_error(path, answer)
            await asyncio.sleep(0.05)
            continue
        answered = answer.json()
        rows = answered if path == "/embed" else [row["embedding"] for row in answered["data"]]
        if np.abs(np.array(rows) - vectors[indices]).max() > TOLERANCE:
            seen.wrong += 1
