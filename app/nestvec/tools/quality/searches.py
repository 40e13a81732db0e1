"""Searches that are measured: queries and documents with their vectors, judged or not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.statistics.scores import ndcg
from nestvec.corpus.reports.statistics.types import Ranking
from nestvec.engine.types import FloatArray
from nestvec.tools.quality.tasks import RetrievalTask
from nestvec.tools.quality.variants import VectorSource

# Number of results of a search.
DEPTH: Final = 10

# Returns the pooled vectors `[N, H]` that a source is made of.
PooledVectors = Callable[[VectorSource], FloatArray]


@dataclass(frozen=True, slots=True)
class EmbeddedSearch:
    """Queries and documents to search, judged or not, with their vectors.

    Attributes:
        name: The task's name in the report.
        queries: Vectors of the queries; of the documents where queries are some of them.
        documents: Vectors of the documents.
        count: Number of queries.
        relevant: Gains by document index, for each query; empty where nobody judged.
        query_rows: Rows of the documents that are the queries, `[Q]`; None where queries have vectors of their own.
    """

    name: str
    queries: PooledVectors
    documents: PooledVectors
    count: int
    relevant: Sequence[Mapping[int, float]] = ()
    query_rows: NDArray[np.int64] | None = None


def judged_search(
    name: str, task: RetrievalTask, queries: PooledVectors, documents: PooledVectors
) -> EmbeddedSearch:
    """Return a search with the judgements of a task."""
    index_of = {document: index for index, document in enumerate(task.document_ids)}
    relevant = [
        {index_of[id_]: gain for id_, gain in task.relevant[query].items() if id_ in index_of}
        for query in task.query_ids
    ]
    return EmbeddedSearch(name, queries, documents, len(relevant), relevant)


def without_self(ranking: Ranking, search: EmbeddedSearch, k: int) -> Ranking:
    """Return the first K of each ranking, `[Q, K]`, without the query's own document."""
    if search.query_rows is None:
        return ranking[:, :k]
    is_other = ranking != search.query_rows[:, None]
    # Where a query did not find itself, its last result goes.
    is_other[is_other.all(axis=1), -1] = False
    others: Ranking = ranking[is_other].reshape(len(ranking), -1)[:, :k]
    return others


def mean_ndcg(ranking: Ranking, task: RetrievalTask, *, k: int) -> float:
    """Return the mean nDCG@K over a task's queries.

    Args:
        ranking: Document indices by query, `[Q, K]` or deeper, best first.
        task: The judged search.
        k: Depth at which rankings are cut.
    """
    scores = [
        ndcg([task.document_ids[index] for index in indices], task.relevant[query], k=k)
        for query, indices in zip(task.query_ids, ranking.tolist(), strict=True)
    ]
    return float(np.mean(scores))
