"""Models of a running server under report: what its clients get."""

import asyncio
import time
from collections.abc import Sequence
from typing import Self

import numpy as np

from nestvec.corpus.embedders import TextOptions
from nestvec.corpus.reports.frame import CountedTokens, Subject
from nestvec.corpus.reports.statistics.types import ProgressCallback
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.postprocess import finish


class ServerSubjects:
    """Models of a running server; a context manager that closes its connections.

    Args:
        url: The server's base.
        key: An API key, "" for none.
        on_progress: Told how many texts were embedded.
    """

    def __init__(self, url: str, key: str, on_progress: ProgressCallback) -> None:
        self._url, self._key, self._on_progress = url, key, on_progress
        self._runner = asyncio.Runner()
        self._servers: list[ServerEmbedder] = []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections and the event loop."""
        for server in self._servers:
            self._runner.run(server.close())
        self._runner.close()

    def names(self) -> list[str]:
        """Names of all models that give vectors, the server's own first.

        Raises:
            SourceError: The server cannot be reached.
        """
        server = self._open("")
        answer = self._runner.run(server.request("GET", "/v1/models"))
        roots = [
            row["root"]
            for row in answer.json()["data"]
            if "dense" in (row.get("outputs") or ["dense"])
        ]
        return list(dict.fromkeys(roots))

    def subject(self, name: str) -> Subject:
        """Return a model of the server.

        Raises:
            SourceError: The server cannot be reached, or has no such model.
        """
        server = self._open(name)
        described = self._runner.run(server.model(TextOptions()))

        async def vectors(texts: Sequence[str], role: str | None) -> tuple[FloatArray, int]:
            parts, start, tokens = [], 0, 0
            options = TextOptions(prompt_role=role)
            while start < len(texts):
                chunk = texts[start : start + server.pacer.take(texts, start)]
                embedded = await server.embed(chunk, options)
                rows = np.asarray(embedded.vectors, np.float32)
                parts.append(finish(rows, dimensions=rows.shape[1], normalize=True))
                tokens += embedded.tokens
                self._on_progress(len(chunk))
                start += len(chunk)
            return np.concatenate(parts), tokens

        def time_run(texts: Sequence[str]) -> CountedTokens:
            started = time.monotonic()
            _, tokens = self._runner.run(vectors(texts, None))
            return CountedTokens(tokens, time.monotonic() - started)

        def embed(texts: Sequence[str], role: str | None = None) -> FloatArray:
            return self._runner.run(vectors(texts, role))[0]

        return Subject(described.name, described.space, embed, time_run=time_run, runs_here=False)

    def _open(self, name: str) -> ServerEmbedder:
        server = ServerEmbedder(self._url, key=self._key, model=name)
        self._servers.append(server)
        return server
