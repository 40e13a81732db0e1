"""Memory: batches of adversarial lengths on a card that is full, and batches that must leave nothing behind."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from nestvec.backends.cuda.buffers import Device
from nestvec.backends.cuda.runtime import CudaDevice
from nestvec.engine.backend import Backend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import Item
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import BackendError, BackendMemoryError

MAX_ITEMS: Final = 4096
# Of four kinds of adversarial batches, so many have inputs that are all as long as the longest.
LONG_KINDS: Final = 2
WORKERS: Final = 3
# Of the card's memory, when the check is about memory.
FULL_SHARE: Final = 0.95
FILLER_BYTES: Final = (2**29, 2**25)
SAMPLE_S: Final = 0.02


@contextmanager
def filled(room_bytes: int, device: Device | None = None) -> Iterator[float]:
    """Take the card's memory but for 5 % and some room, and yield the share of it that the room is.

    A backend that is opened with that `memory_share` may take what is left, and no more.

    Args:
        room_bytes: What to leave.
        device: The card; the first one by default.
    """
    card = device or CudaDevice(0)
    free, total = card.memory()
    blocks: list[int] = []
    try:
        # Another process may hold some: what the driver will not give any more is taken too.
        with suppress(BackendError):
            for block_bytes in FILLER_BYTES:
                while free - room_bytes > (1 - FULL_SHARE) * total + block_bytes:
                    blocks.append(card.allocate(block_bytes))
                    free, _ = card.memory()
        yield room_bytes / total
    finally:
        for block in blocks:
            card.free(block)


@dataclass(slots=True)
class Endurance:
    """What became of batches of adversarial lengths.

    Attributes:
        batches: Number of batches that ran.
        shortages: Number of batches that did not fit and were split.
        failures: Number of batches that failed otherwise; must be 0.
        most_used: Greatest share of the card's memory that was taken.
        failed_as: Kinds of failures.
    """

    batches: int = 0
    shortages: int = 0
    failures: int = 0
    most_used: float = 0.0
    failed_as: set[str] = field(default_factory=set)


def endure(
    backend: Backend,
    max_tokens: int,
    vocabulary: int,
    budget: float,
    seconds: float,
    device: Device | None = None,
) -> Endurance:
    """Run batches of every shape up to a budget in several threads, for so many seconds: none may end the process.

    Args:
        backend: What runs them.
        max_tokens: Most tokens of an input.
        vocabulary: Ids are drawn below it.
        budget: Tokens of a batch, about; more than fits, so that there are shortages too.
        seconds: How long.
        device: The card whose memory is looked at meanwhile; None for none.
    """
    result, lock = Endurance(), threading.Lock()
    until = time.monotonic() + seconds

    def run(items: list[Item]) -> None:
        try:
            raw_vectors(backend, items, Pooler(backend.info.pooling or "mean"))
            with lock:
                result.batches += 1
        except BackendMemoryError:
            with lock:
                result.shortages += 1
            if len(items) > 1:
                run(items[: len(items) // 2])
                run(items[len(items) // 2 :])
        except Exception as error:  # noqa: BLE001 - counted, and shown
            with lock:
                result.failures += 1
                result.failed_as.add(type(error).__name__)

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        while time.monotonic() < until:
            run(_adversarial(random, max_tokens, vocabulary, budget))

    def watch() -> None:
        while device is not None and time.monotonic() < until:
            free, total = device.memory()
            result.most_used = max(result.most_used, 1 - free / total)
            time.sleep(SAMPLE_S)

    with ThreadPoolExecutor(WORKERS + 1) as pool:
        watching = pool.submit(watch)
        list(pool.map(work, range(WORKERS)))
        watching.result()
    return result


def _adversarial(
    random: np.random.Generator, max_tokens: int, vocabulary: int, budget: float
) -> list[Item]:
    """Make a batch: all inputs the longest there are, all of one length, or of any lengths."""
    kind = random.integers(4)
    longest = max_tokens if kind == 0 else int(random.integers(1, max_tokens + 1))
    items: list[Item] = []
    cost = 0.0
    while cost < budget and len(items) < MAX_ITEMS:
        length = longest if kind < LONG_KINDS else int(random.integers(1, longest + 1))
        items.append(Item(random.integers(5, vocabulary, length).astype(np.int32)))
        cost += max(length, 8)
    return items


def rss_bytes() -> int:
    """Return the resident memory of this process, of which page-locked memory is a part."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line
    )
    return int(line.split()[1]) * 1024


def growth_bytes(backend: Backend, items: list[Item], batches: int) -> float:
    """Return how many bytes of the process's memory a batch leaves behind, once as many more have run as a tenth."""
    pooler = Pooler(backend.info.pooling or "mean")
    for _ in range(max(batches // 10, 1)):
        raw_vectors(backend, items, pooler)
    before = rss_bytes()
    for _ in range(batches):
        raw_vectors(backend, items, pooler)
    return (rss_bytes() - before) / batches
