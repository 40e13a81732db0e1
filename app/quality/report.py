"""Runs the tasks against a server over HTTP and writes the table."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx
import numpy as np

from app.engine.types import FloatArray
from app.errors import SourceError
from app.quality.scores import ndcg, pair_cosines, rank_documents, spearman
from app.quality.tasks import PairTask, RetrievalTask

REQUEST_TEXTS: Final = 128
NDCG_DEPTH: Final = 10
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure."""

    task: str
    dimensions: int
    score: float


class RemoteEmbedder:
    """Embeds through a running server.

    Args:
        url: Its base, without /v1.
        key: An API key, "" for none.
        model: The name to ask for, "" for the only one.
        progress: Told how many texts were done.
    """

    def __init__(self, url: str, *, key: str, model: str, progress: Progress) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=300)
        self._model = model
        self._progress = progress

    def embed(self, texts: Sequence[str], dimensions: int | None) -> FloatArray:
        """Vectors of texts, (N, D), float32; longer texts are cut at the end.

        Raises:
            SourceError: The server cannot be reached, or refuses.
        """
        rows: list[FloatArray] = []
        for start in range(0, len(texts), REQUEST_TEXTS):
            chunk = list(texts[start : start + REQUEST_TEXTS])
            body: dict[str, object] = {
                "input": chunk,
                "encoding_format": "base64",
                "truncate": "end",
            }
            if self._model:
                body["model"] = self._model
            if dimensions is not None:
                body["dimensions"] = dimensions
            try:
                answer = self._client.post("/v1/embeddings", json=body)
            except httpx.HTTPError as error:
                raise SourceError(f"the server cannot be reached: {error}") from error
            if answer.status_code != httpx.codes.OK:
                raise SourceError(f"the server answered {answer.status_code}: {answer.text[:300]}")
            rows += [
                np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
                for item in answer.json()["data"]
            ]
            self._progress(len(chunk))
        return np.stack(rows)


def run_pairs(embedder: RemoteEmbedder, task: PairTask, sizes: Sequence[int]) -> list[Row]:
    """Spearman of cosine with gold at each number of dimensions."""
    rows = []
    for size in sizes:
        first, second = embedder.embed(task.first, size), embedder.embed(task.second, size)
        score = spearman(pair_cosines(first, second).tolist(), task.gold)
        rows.append(Row("STS-B test Spearman", size, score))
    return rows


def run_retrieval(
    embedder: RemoteEmbedder, task: RetrievalTask, sizes: Sequence[int | None]
) -> list[Row]:
    """nDCG@10 at each number of dimensions."""
    rows = []
    for size in sizes:
        documents = embedder.embed(task.documents, size)
        queries = embedder.embed(task.queries, size)
        order = rank_documents(queries, documents, k=NDCG_DEPTH)
        scores = [
            ndcg([task.document_ids[i] for i in best], task.relevant[query], k=NDCG_DEPTH)
            for query, best in zip(task.query_ids, order, strict=True)
        ]
        rows.append(Row("SciFact nDCG@10", documents.shape[1], float(np.mean(scores))))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """A table of all figures."""
    lines = ["| task | dimensions | score |", "|---|---|---|"]
    lines += [f"| {row.task} | {row.dimensions} | {row.score:.4f} |" for row in rows]
    return "\n".join(lines)
