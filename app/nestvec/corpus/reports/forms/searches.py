"""Searches that are measured: queries and documents with their vectors, judged or not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.forms.variants import VectorSource
from nestvec.corpus.reports.statistics.types import Ranking
from nestvec.engine.types import FloatArray

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


def without_self(ranking: Ranking, search: EmbeddedSearch, k: int) -> Ranking:
    """Return the first K of each ranking, `[Q, K]`, without the query's own document."""
    if search.query_rows is None:
        return ranking[:, :k]
    is_other = ranking != search.query_rows[:, None]
    # Where a query did not find itself, its last result goes.
    is_other[is_other.all(axis=1), -1] = False
    others: Ranking = ranking[is_other].reshape(len(ranking), -1)[:, :k]
    return others
