"""What a vector store loses that moves to another model by a map instead of being embedded again."""

from dataclasses import replace
from typing import Final

from nestvec.corpus.reports.statistics.neighbours import nearest
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import AffineMap
from nestvec.engine.vectors.postprocess import finish
from nestvec.tools.quality.searches import mean_ndcg
from nestvec.tools.quality.tasks import RetrievalTask
from nestvec.tools.quality.vectors import ModelVectors

DEPTH: Final = 10


def measure_migration(
    affine_map: AffineMap, source: ModelVectors, target: ModelVectors, task: RetrievalTask
) -> AffineMap:
    """Return the map with nDCG@10 of a judged search: old documents mapped, queries by the new model.

    Args:
        affine_map: The map from the source's space to the target's.
        source: The old model.
        target: The new model.
        task: The judged search.
    """
    old_documents = _unit(source.raw(task.documents, role="passage")[0])
    new_documents = _unit(target.raw(task.documents, role="passage")[0])
    old_queries = _unit(source.raw(task.queries, role="query")[0])
    new_queries = _unit(target.raw(task.queries, role="query")[0])
    mapped = _unit(affine_map.apply(old_documents))
    figures = {
        "ndcg_at_10_old": _ndcg(old_queries, old_documents, task),
        "ndcg_at_10_new": _ndcg(new_queries, new_documents, task),
        "ndcg_at_10_migrated": _ndcg(new_queries, mapped, task),
    }
    loss = 1 - figures["ndcg_at_10_migrated"] / max(figures["ndcg_at_10_new"], 1e-9)
    return replace(affine_map, figures={**affine_map.figures, **figures, "loss": loss})


def _unit(vectors: FloatArray) -> FloatArray:
    """Return vectors at unit length."""
    return finish(vectors, dimensions=None, normalize=True)


def _ndcg(queries: FloatArray, documents: FloatArray, task: RetrievalTask) -> float:
    """Return the mean nDCG@10 of a task's queries."""
    return mean_ndcg(nearest(queries, documents, DEPTH), task, k=DEPTH)
