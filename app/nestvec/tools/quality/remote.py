"""Runs the tasks against a server over HTTP and writes the table: what a client of it gets."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx
import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray
from nestvec.errors import SourceError
from nestvec.tools.quality.neighbours import among, nearest, nearest_bits
from nestvec.tools.quality.scores import ndcg, pair_cosines, spearman
from nestvec.tools.quality.tasks import PairTask, RetrievalTask

REQUEST_TEXTS: Final = 128
NDCG_DEPTH: Final = 10
Progress = Callable[[int], object]


# Candidates that a search by bits hands to the float vectors: ten times the depth.
RESCORED: Final = 10 * NDCG_DEPTH
# Cohere's dialect gives several dtypes of one run, and takes so many texts a request.
TYPES: Final = ("float", "int8", "ubinary")
TYPED_TEXTS: Final = 96


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure."""

    task: str
    dimensions: int
    score: float
    dtype: str = "float"


class RemoteEmbedder:
    """Embeds through a running server; a context manager, which closes its connections.

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

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the connections."""
        self._client.close()

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
            found = self._ask("/v1/embeddings", body)
            rows += [
                np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in found["data"]
            ]
            self._progress(len(chunk))
        return np.stack(rows)

    def embed_types(self, texts: Sequence[str], dimensions: int | None) -> dict[str, NDArray[Any]]:
        """The same in each of `TYPES`, from one run of the model.

        Raises:
            SourceError: The server cannot be reached, or refuses.
        """
        rows: dict[str, list[Any]] = {name: [] for name in TYPES}
        for start in range(0, len(texts), TYPED_TEXTS):
            chunk = list(texts[start : start + TYPED_TEXTS])
            body: dict[str, object] = {"texts": chunk, "embedding_types": TYPES}
            if self._model:
                body["model"] = self._model
            if dimensions is not None:
                body["output_dimension"] = dimensions
            found = self._ask("/v2/embed", body)["embeddings"]
            for name in TYPES:
                rows[name] += found[name]
            self._progress(len(chunk))
        stored = {"float": np.float32, "int8": np.int8, "ubinary": np.uint8}
        return {name: np.array(rows[name], stored[name]) for name in TYPES}

    def _ask(self, path: str, body: Mapping[str, object]) -> Any:  # noqa: ANN401 - JSON is of any type
        try:
            answer = self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise SourceError(f"the server cannot be reached: {error}") from error
        if answer.status_code != httpx.codes.OK:
            raise SourceError(f"the server answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()


def run_pairs(embedder: RemoteEmbedder, task: PairTask, sizes: Sequence[int]) -> list[Row]:
    """Spearman of cosine with gold at each number of dimensions."""
    rows = []
    for size in sizes:
        first, second = embedder.embed(task.first, size), embedder.embed(task.second, size)
        score = spearman(pair_cosines(first, second).tolist(), task.gold)
        rows.append(Row("STS-B test Spearman", size, score))
    return rows


def run_retrieval(embedder: RemoteEmbedder, task: RetrievalTask, size: int | None) -> list[Row]:
    """nDCG@10 of each dtype, as a store of such vectors would search them."""
    documents = embedder.embed_types(task.documents, size)
    queries = embedder.embed_types(task.queries, size)
    near = documents["float"], queries["float"]
    by_bits = nearest_bits(queries["ubinary"], documents["ubinary"], RESCORED)
    orders = {
        "float": nearest(near[1], near[0], NDCG_DEPTH),
        "int8": nearest(
            queries["int8"].astype(np.float32), documents["int8"].astype(np.float32), NDCG_DEPTH
        ),
        "binary": by_bits,
        f"binary, {RESCORED} rescored by float": among(near[1], near[0], by_bits, NDCG_DEPTH),
    }
    rows = []
    for dtype, order in orders.items():
        scores = [
            ndcg([task.document_ids[i] for i in best], task.relevant[query], k=NDCG_DEPTH)
            for query, best in zip(task.query_ids, order, strict=True)
        ]
        rows.append(Row("SciFact nDCG@10", near[0].shape[1], float(np.mean(scores)), dtype))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """A table of all figures."""
    lines = ["| task | dimensions | dtype | score |", "|---|---|---|---|"]
    lines += [f"| {row.task} | {row.dimensions} | {row.dtype} | {row.score:.4f} |" for row in rows]
    return "\n".join(lines)
