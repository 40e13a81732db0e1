"""Searches with judgements: their vectors with their gains, and the mean of their scores."""

import numpy as np

from nestvec.corpus.reports.forms.searches import EmbeddedSearch, PooledVectors
from nestvec.corpus.reports.statistics.scores import ndcg
from nestvec.corpus.reports.statistics.types import Ranking
from nestvec.tools.quality.tasks import RetrievalTask


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
