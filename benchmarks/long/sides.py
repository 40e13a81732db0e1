"""The sides of a contest: our server, llama.cpp's server, and engines that run in a worker process."""

import asyncio
import base64
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from nestvec.tools.bench.client import Connection, Target
from numpy.typing import NDArray
from tokenizers import Tokenizer
from typing_extensions import override

from benchmarks.engines import Engine, Setting, Worker, start
from benchmarks.long.loads import Load
from benchmarks.processes import Server, peak_rss_mb, reset_peak_rss

Vectors = NDArray[np.float32]
OK: Final = 200


class SideError(Exception):
    """A side gave no vectors."""


class SideLostError(SideError):
    """A side ended, hangs or cannot be reached: it gives none any more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a side gave for the texts of a load.

    Attributes:
        seconds: Seconds that it took.
        vectors: The vectors, (B, D), float32.
    """

    seconds: float
    vectors: Vectors


class Side(ABC):
    """One of those that are compared.

    Attributes:
        name: Its name in reports.
        note: What is to be said of its settings.
    """

    name: str
    note: str = ""

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it is loaded.

        Raises:
            OSError: It is not installed.
            SystemExit: It ended instead, or is not ready in time.
        """

    @abstractmethod
    def stop(self) -> None:
        """End its processes; one that does not run is left alone."""

    @abstractmethod
    def embed(self, texts: Sequence[str], timeout_s: float) -> Answer:
        """Embed texts, all at once.

        Raises:
            SideError: It refused them.
            SideLostError: It ended, or took longer than so many seconds.
        """

    @abstractmethod
    def peak_rss_mb(self) -> float:
        """Return its processes' peak memory in MB since the last reset.

        Raises:
            OSError: It runs no more.
        """

    @abstractmethod
    def reset_peak_rss(self) -> None:
        """Have the peak memory counted anew from here.

        Raises:
            OSError: It runs no more.
        """

    def tune(self, load: Load, texts: Sequence[str], timeout_s: float) -> None:  # noqa: B027 - nothing to do is the rule
        """Choose its fastest settings by the texts of a load like those that follow; servers choose by themselves.

        Raises:
            SideLostError: It ended, or took longer than so many seconds.
        """


class HttpSide(Side):
    """A server, asked with one request for all texts; what reading the answer takes is not counted.

    Args:
        server: The server; its OpenAI route answers in base64.
        note: What is to be said of its settings.
        tokenizer: With one it is sent token ids instead of texts.
    """

    def __init__(self, server: Server, note: str = "", tokenizer: Tokenizer | None = None) -> None:
        self.name = server.name
        self.note = note
        self.server = server
        self._tokenizer = tokenizer

    @override
    def start(self) -> None:
        self.server.start()

    @override
    def stop(self) -> None:
        self.server.stop()

    @override
    def embed(self, texts: Sequence[str], timeout_s: float) -> Answer:
        inputs: list[Any] = list(texts)
        if self._tokenizer:
            inputs = [encoding.ids for encoding in self._tokenizer.encode_batch(inputs)]
        content = {"model": "model", "encoding_format": "base64"}
        body = orjson.dumps({**content, "input": inputs if len(inputs) > 1 else inputs[0]})
        target = Target.parse(self.server.url + "/v1/embeddings")
        started = time.perf_counter()
        try:
            response = asyncio.run(_post(target, body, timeout_s))
        except (OSError, ValueError, TimeoutError) as error:
            raise SideLostError(f"{type(error).__name__} {error}") from error
        seconds = time.perf_counter() - started
        if response.status != OK:
            raise SideError(f"{response.status} {response.body[:300]!r}")
        return Answer(seconds, vectors_of(response.body))

    @override
    def peak_rss_mb(self) -> float:
        return self.server.peak_rss_mb()

    @override
    def reset_peak_rss(self) -> None:
        self.server.reset_peak_rss()


async def _post(target: Target, body: bytes, timeout_s: float) -> Any:
    connection = Connection(target)
    try:
        return await asyncio.wait_for(connection.post(body), timeout_s)
    finally:
        await connection.close()


def vectors_of(body: bytes) -> Vectors:
    """Return the vectors of an answer of OpenAI's route in base64, (B, D)."""
    rows = sorted(orjson.loads(body)["data"], key=lambda row: row["index"])
    return np.stack([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows])


class WorkerSide(Side):
    """An engine in a process of `workers/`; its time is taken there, so that no HTTP is counted.

    Args:
        engine: The engine; its settings are those that `tune` tries.
        folder: Folder of the model's files.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.name = engine.name
        self.engine = engine
        self.setting: Setting = dict(engine.settings[0])
        self._folder = folder
        self._worker: Worker | None = None

    @override
    def start(self) -> None:
        self._worker = start(self.engine, self._folder, self._folder)
        self.note = ", ".join(
            f"{name} {version}" for name, version in self._worker.versions.items()
        )

    @override
    def stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()

    @override
    def embed(self, texts: Sequence[str], timeout_s: float) -> Answer:
        return self._ask(texts, self.setting, timeout_s)

    @override
    def tune(self, load: Load, texts: Sequence[str], timeout_s: float) -> None:
        took_s = [self._ask(texts, each, timeout_s).seconds for each in self.engine.settings]
        self.setting = self.engine.settings[took_s.index(min(took_s))]
        words = ", ".join(f"{name} {value}" for name, value in self.setting.items())
        self.note += f"; fastest on {load.name} with {words}"

    @override
    def peak_rss_mb(self) -> float:
        return peak_rss_mb(self._running().process.pid)

    @override
    def reset_peak_rss(self) -> None:
        reset_peak_rss(self._running().process.pid)

    def _running(self) -> Worker:
        if self._worker is None:
            raise SideLostError("it does not run")
        return self._worker

    def _ask(self, texts: Sequence[str], setting: Setting, timeout_s: float) -> Answer:
        try:
            answer = self._running().ask(
                list(texts), setting, with_vectors=True, timeout_s=timeout_s
            )
        except SystemExit as error:
            raise SideLostError(str(error)) from error
        return Answer(answer["seconds"], np.array(answer["vectors"], np.float32))
