"""What a store loses that moves to another model by a map instead of being embedded again."""

from dataclasses import replace
from typing import Final

import numpy as np

from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import AffineMap
from nestvec.engine.vectors.postprocess import finish
from nestvec.tools.quality.neighbours import nearest
from nestvec.tools.quality.scores import ndcg
from nestvec.tools.quality.tasks import RetrievalTask
from nestvec.tools.quality.vectors import ModelVectors

DEPTH: Final = 10


def measure_migration(
    one: AffineMap, source: ModelVectors, target: ModelVectors, task: RetrievalTask
) -> AffineMap:
    """The map with nDCG@10 of a judged search: old documents mapped, queries by the new model.

    Args:
        one: From the source's space to the target's.
        source: The old model.
        target: The new one.
        task: Judged queries.
    """
    old_documents = _unit(source.raw(task.documents, role="passage")[0])
    new_documents = _unit(target.raw(task.documents, role="passage")[0])
    old_queries = _unit(source.raw(task.queries, role="query")[0])
    new_queries = _unit(target.raw(task.queries, role="query")[0])
    mapped = _unit(one.apply(old_documents))
    figures = {
        "ndcg_at_10_old": _ndcg(old_queries, old_documents, task),
        "ndcg_at_10_new": _ndcg(new_queries, new_documents, task),
        "ndcg_at_10_migrated": _ndcg(new_queries, mapped, task),
    }
    loss = 1 - figures["ndcg_at_10_migrated"] / max(figures["ndcg_at_10_new"], 1e-9)
    return replace(one, figures={**one.figures, **figures, "loss": loss})


def _unit(vectors: FloatArray) -> FloatArray:
    return finish(vectors, dimensions=None, normalize=True)


def _ndcg(queries: FloatArray, documents: FloatArray, task: RetrievalTask) -> float:
    scores = [
        ndcg([task.document_ids[n] for n in found], task.relevant[query], k=DEPTH)
        for query, found in zip(
            task.query_ids, nearest(queries, documents, DEPTH).tolist(), strict=True
        )
    ]
    return float(np.mean(scores))
