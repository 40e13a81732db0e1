"""Scores of a running server over HTTP: what a client of it gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.embedders import TextOptions
from nestvec.corpus.reports.statistics.neighbours import nearest, nearest_bits, rescore
from nestvec.corpus.reports.statistics.scores import pair_cosines, spearman
from nestvec.corpus.reports.statistics.types import ProgressCallback
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.engine.types import FloatArray
from nestvec.errors import CapacityError
from nestvec.tools.quality.searches import mean_ndcg
from nestvec.tools.quality.tasks import PairTask, RetrievalTask

NDCG_DEPTH: Final = 10
# Candidates that a search by bits hands to the float vectors: ten times the depth.
RESCORED: Final = 10 * NDCG_DEPTH
# Cohere's dialect gives several dtypes of one run, and takes at most so many texts a request.
DTYPES_OF_ONE_RUN: Final = ("float", "int8", "ubinary")
COHERE_TEXTS_PER_REQUEST: Final = 96


@dataclass(frozen=True, slots=True)
class RemoteScore:
    """One measured figure.

    Attributes:
        task: The data set and the measure.
        dimensions: Of the vectors.
        score: Between 0 and 1; a correlation may be negative.
        dtype: What values of the vectors were stored as.
    """

    task: str
    dimensions: int
    score: float
    dtype: str = "float"


@dataclass(frozen=True, slots=True)
class RemoteVectors:
    """Vectors of many texts by a running server, in requests of bounded size; too-long texts are cut at the end.

    Attributes:
        server: The server.
        on_progress: Told how many texts were done.
    """

    server: ServerEmbedder
    on_progress: ProgressCallback

    async def floats(self, texts: Sequence[str], dimensions: int | None) -> FloatArray:
        """Return vectors `[N, D]`, float32.

        Raises:
            InputError: The server refuses a text or the dimensions.
            SourceError: The server cannot be reached, or fails.
        """
        options = TextOptions(dimensions=dimensions)
        parts = []
        start = 0
        while start < len(texts):
            chunk = texts[start : start + self.server.pacer.take(texts, start)]
            parts.append(np.asarray((await self.server.embed(chunk, options)).vectors))
            self.on_progress(len(chunk))
            start += len(chunk)
        return np.concatenate(parts)

    async def each_dtype(
        self, texts: Sequence[str], dimensions: int | None
    ) -> dict[str, NDArray[Any]]:
        """Return vectors in each of `DTYPES_OF_ONE_RUN`: `[N, D]` float32 and int8, `[N, D / 8]` uint8.

        Raises:
            InputError: The server refuses a text or the dimensions.
            SourceError: The server cannot be reached, or fails.
        """
        rows: dict[str, list[Any]] = {name: [] for name in DTYPES_OF_ONE_RUN}
        start, pacer = 0, self.server.pacer
        while start < len(texts):
            count = min(COHERE_TEXTS_PER_REQUEST, pacer.take(texts, start))
            chunk = list(texts[start : start + count])
            body: dict[str, Any] = {
                "texts": chunk,
                "embedding_types": DTYPES_OF_ONE_RUN,
                "model": self.server.model_name or None,
                "output_dimension": dimensions,
            }
            started_s = pacer.clock()
            try:
                answer = (await self.server.request("POST", "/v2/embed", body)).json()
            except CapacityError:
                if len(chunk) == 1:
                    raise
                pacer.too_much(chunk)
                continue
            tokens = int(answer["meta"]["billed_units"]["input_tokens"])
            pacer.done(chunk, tokens, pacer.clock() - started_s)
            embeddings = answer["embeddings"]
            for name in DTYPES_OF_ONE_RUN:
                rows[name] += embeddings[name]
            self.on_progress(len(chunk))
            start += count
        stored = {"float": np.float32, "int8": np.int8, "ubinary": np.uint8}
        return {name: np.array(rows[name], stored[name]) for name in DTYPES_OF_ONE_RUN}


async def score_pairs(
    vectors: RemoteVectors, task: PairTask, sizes: Sequence[int], name: str
) -> list[RemoteScore]:
    """Return Spearman's correlation of cosines with the gold scores at each number of dimensions."""
    rows = []
    for size in sizes:
        first = await vectors.floats(task.first, size)
        second = await vectors.floats(task.second, size)
        score = spearman(pair_cosines(first, second).tolist(), task.gold)
        rows.append(RemoteScore(f"{name} Spearman", size, score))
    return rows


async def score_retrieval(
    vectors: RemoteVectors, task: RetrievalTask, size: int | None, name: str
) -> list[RemoteScore]:
    """Return nDCG@10 for each dtype, as a store of such vectors would search them."""
    documents = await vectors.each_dtype(task.documents, size)
    queries = await vectors.each_dtype(task.queries, size)
    document_floats, query_floats = documents["float"], queries["float"]
    by_bits = nearest_bits(queries["ubinary"], documents["ubinary"], RESCORED)
    orders = {
        "float": nearest(query_floats, document_floats, NDCG_DEPTH),
        "int8": nearest(
            queries["int8"].astype(np.float32), documents["int8"].astype(np.float32), NDCG_DEPTH
        ),
        "binary": by_bits,
        f"binary, {RESCORED} rescored by float": rescore(
            query_floats, document_floats, by_bits, NDCG_DEPTH
        ),
    }
    rows = []
    for dtype, order in orders.items():
        score = mean_ndcg(order, task, k=NDCG_DEPTH)
        rows.append(RemoteScore(f"{name} nDCG@10", document_floats.shape[1], score, dtype))
    return rows


def markdown(rows: Sequence[RemoteScore]) -> str:
    """Write all figures as a table in Markdown."""
    lines = ["| task | dimensions | dtype | score |", "|---|---|---|---|"]
    lines += [f"| {row.task} | {row.dimensions} | {row.dtype} | {row.score:.4f} |" for row in rows]
    return "\n".join(lines)
