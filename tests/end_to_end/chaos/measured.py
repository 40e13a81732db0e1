"""What the load tests share: a server of the default model, unique texts, and its size while it works."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psutil
from nestvec.tools.bench.load_generator import LoadRequest
from nestvec.tools.bench.texts import workload_texts

from tests.support.data_sets import data_set
from tests.support.server import CommandWrapper, RunningServer, running_server

CORPUS = data_set("corpus")


@contextmanager
def default_server(
    folder: Path, through: CommandWrapper = list, /, **settings: object
) -> Iterator[RunningServer]:
    """Serve the default model without a vector cache, so that every text is run."""
    chosen = {"vector_cache_bytes": 0, "truncate": "end", **settings}
    with running_server(folder, through, **chosen) as server:
        yield server


def unique_requests(load: str, each: int, *, seed: int, model: str = "") -> Iterator[LoadRequest]:
    """Make endless requests of so many texts, each text made unique by a counter."""
    data = CORPUS if CORPUS.is_dir() else None
    chooser = random.Random(seed)
    pool = workload_texts(load, data, seed)
    for number in itertools.count():
        texts = [
            f"{seed}.{number}.{n} {text}" for n, text in enumerate(chooser.choices(pool, k=each))
        ]
        body = {"input": texts, "encoding_format": "base64", **({"model": model} if model else {})}
        yield LoadRequest(orjson.dumps(body), each)


@dataclass
class Size:
    """Memory and open files of a server's processes over time.

    Attributes:
        pid: Id of the server's first process.
        rss_bytes: Memory of all processes together, once a second.
        files: Open files of all processes together, once a second.
    """

    pid: int
    rss_bytes: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self) -> None:
        """Measure once."""
        parent = psutil.Process(self.pid)
        processes = [parent, *parent.children(recursive=True)]
        self.rss_bytes.append(sum(process.memory_info().rss for process in processes))
        self.files.append(sum(process.num_fds() for process in processes))

    async def watch(self) -> None:
        """Measure once a second until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(1)

    def growth_bytes(self, warm_share: float) -> int:
        """How much the largest of the last fifth is over the largest before it, without a share for warming up."""
        warm_bytes = self.rss_bytes[int(len(self.rss_bytes) * warm_share) :]
        cut = max(1, len(warm_bytes) * 4 // 5)
        return max(warm_bytes[cut:] or warm_bytes) - max(warm_bytes[:cut])
