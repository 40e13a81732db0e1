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
from nestvec.tools.bench.load import Request
from nestvec.tools.bench.loads import texts_of

from tests.support.server import Server, running_server

CORPUS = Path(__file__).parents[4] / "shared/data/corpus"


@contextmanager
def default_server(folder: Path, **settings: object) -> Iterator[Server]:
    """The default model, vector cache off (decisions 28)."""
    chosen = {"vector_cache_bytes": 0, "truncate": "end", **settings}
    with running_server(folder, **chosen) as server:
        yield server


def unique_requests(load: str, each: int, *, seed: int, model: str = "") -> Iterator[Request]:
    """Endless requests of so many texts, each text unique by a counter."""
    data = CORPUS if CORPUS.is_dir() else None
    chooser = random.Random(seed)
    pool = texts_of(load, data, seed)
    for number in itertools.count():
        texts = [
            f"{seed}.{number}.{n} {text}" for n, text in enumerate(chooser.choices(pool, k=each))
        ]
        body = {"input": texts, "encoding_format": "base64", **({"model": model} if model else {})}
        yield Request(orjson.dumps(body), each)


@dataclass
class Size:
    """Memory and open files of a server's processes over time.

    Attributes:
        rss_bytes: Of all of them, once a second.
        files: Likewise.
    """

    pid: int
    rss_bytes: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self) -> None:
        """Once."""
        parent = psutil.Process(self.pid)
        processes = [parent, *parent.children(recursive=True)]
        self.rss_bytes.append(sum(one.memory_info().rss for one in processes))
        self.files.append(sum(one.num_fds() for one in processes))

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(1)

    def growth_bytes(self, warm_share: float) -> int:
        """How much the largest of the last fifth is over the largest before it, after a share for warming up."""
        rest = self.rss_bytes[int(len(self.rss_bytes) * warm_share) :]
        cut = max(1, len(rest) * 4 // 5)
        return max(rest[cut:] or rest) - max(rest[:cut])
