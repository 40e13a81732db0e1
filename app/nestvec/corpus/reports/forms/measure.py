"""Scores of every variant on every task, from raw vectors of one pass."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from nestvec.corpus.reports.forms.funnels import Funnel
from nestvec.corpus.reports.forms.searches import DEPTH, EmbeddedSearch, PooledVectors, without_self
from nestvec.corpus.reports.forms.variants import (
    Variant,
    VectorSource,
    codes,
    pair_similarities,
    unit_prefix,
)
from nestvec.corpus.reports.statistics.bootstrap import Estimate, Resamples
from nestvec.corpus.reports.statistics.geometry import Geometry
from nestvec.corpus.reports.statistics.neighbours import nearest, nearest_bits, overlap
from nestvec.corpus.reports.statistics.scores import ndcg, ranks
from nestvec.corpus.reports.statistics.types import Ranking
from nestvec.engine.types import Float64Array

RECALL_DEPTH: Final = 100


@dataclass(frozen=True, slots=True)
class VariantScore:
    """A variant's score on a task.

    Attributes:
        task: The task's name in the report.
        metric: "spearman", "ndcg_at_10", "recall_at_10", "recall_at_100" or "agreement_at_10".
        variant: The form that was measured.
        estimate: The score.
        loss: The loss relative to full float vectors on the same task, with an interval of its own; paired.
        values: The score of each query, `[Q]`; None for correlations.
    """

    task: str
    metric: str
    variant: Variant
    estimate: Estimate
    loss: Estimate
    values: Float64Array | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class Measurements:
    """All of a report's scores.

    Attributes:
        figures: The scores of variants.
        funnels: The searches in two stages.
        geometries: Geometry of full vectors of documents, by task.
    """

    figures: list[VariantScore] = field(default_factory=list)
    funnels: list[Funnel] = field(default_factory=list)
    geometries: dict[str, Geometry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grid:
    """The variants that are measured.

    Attributes:
        sources: Where vectors come from, the full one first.
        dimensions: Numbers of dimensions, falling; a source leaves out those that it lacks, and bits need a multiple
            of 8.
        dtypes: Keys of `variants.DTYPES`.
    """

    sources: Sequence[VectorSource]
    dimensions: Sequence[int]
    dtypes: Sequence[str]

    def variants(self) -> Iterable[Variant]:
        """Yield every variant, the full one first."""
        for source in self.sources:
            for size in source.sizes(self.dimensions):
                for dtype in self.dtypes:
                    if dtype != "binary" or size % 8 == 0:
                        yield Variant(source, size, dtype)


def measure_pairs(
    name: str, gold: Sequence[float], first: PooledVectors, second: PooledVectors, grid: Grid
) -> list[VariantScore]:
    """Return Spearman's correlation of similarities with the gold scores `[N]`, for each variant.

    Args:
        name: The task's name in the report.
        gold: How alike the texts of each pair are.
        first: Vectors of the first texts.
        second: Vectors of the second.
        grid: The variants.
    """
    resamples, gold_ranks = Resamples(len(gold)), ranks(gold)
    scores: list[VariantScore] = []
    reference: Float64Array | None = None
    for variant in grid.variants():
        source, dtype = variant.source, variant.dtype
        left, right = (
            codes(
                unit_prefix(source.vectors(pooled(source)), variant.dimensions),
                dtype,
                source.quantizer,
            )
            for pooled in (first, second)
        )
        similarity_ranks = ranks(pair_similarities(left, right, dtype))
        score = float(np.corrcoef(similarity_ranks, gold_ranks)[0, 1])
        draws = resamples.correlation(similarity_ranks, gold_ranks)
        reference = draws if reference is None else reference
        base = scores[0].estimate.score if scores else score
        loss = resamples.estimate(1 - score / base, 1 - draws / reference)
        estimate = resamples.estimate(score, draws)
        scores.append(VariantScore(name, "spearman", variant, estimate, loss))
    return scores


def measure_search(
    search: EmbeddedSearch, grid: Grid, check: Callable[[], None] = lambda: None
) -> list[VariantScore]:
    """Return each variant's agreement with full float vectors and, where judged, its nDCG@10 and recall.

    Args:
        search: What is searched.
        grid: The variants.
        check: Called before each; what it raises ends the work.
    """
    resamples = Resamples(search.count)
    truth: Ranking | None = None
    bases: dict[str, tuple[float, Float64Array]] = {}
    scores: list[VariantScore] = []
    for variant in grid.variants():
        check()
        ranking = _ranking(search, variant)
        truth = ranking[:, :DEPTH] if truth is None else truth
        for metric, values in _query_scores(search, ranking, truth).items():
            score, draws = float(values.mean()), resamples.mean(values)
            base, reference = bases.setdefault(metric, (score, draws))
            loss = resamples.estimate(
                1 - score / max(base, 1e-9), 1 - draws / np.maximum(reference, 1e-9)
            )
            estimate = resamples.estimate(score, draws)
            scores.append(VariantScore(search.name, metric, variant, estimate, loss, values))
    return scores


def _ranking(search: EmbeddedSearch, variant: Variant) -> Ranking:
    """Return the documents that are nearest to each query in a variant, `[Q, RECALL_DEPTH]` or fewer."""
    source, size = variant.source, variant.dimensions
    documents = unit_prefix(source.vectors(search.documents(source)), size)
    if search.query_rows is None:
        queries = unit_prefix(source.vectors(search.queries(source)), size)
    else:
        queries = documents[search.query_rows]
    query_codes, document_codes = (
        codes(unit, variant.dtype, source.quantizer) for unit in (queries, documents)
    )
    depth = min(RECALL_DEPTH + 1, len(documents))
    if variant.dtype == "binary":
        ranking = nearest_bits(query_codes, document_codes, depth)
    else:
        ranking = nearest(query_codes.astype(np.float32), document_codes.astype(np.float32), depth)
    return without_self(ranking, search, min(RECALL_DEPTH, depth - (search.query_rows is not None)))


def _query_scores(
    search: EmbeddedSearch, ranking: Ranking, truth: Ranking
) -> dict[str, Float64Array]:
    """Return the scores of each query, `[Q]`, by metric."""
    scores: dict[str, Float64Array] = {}
    if search.relevant:
        ranked = ranking.tolist()
        scores["ndcg_at_10"] = np.array(
            [
                ndcg(documents, gains, k=DEPTH)
                for documents, gains in zip(ranked, search.relevant, strict=True)
            ]
        )
        for k in (DEPTH, RECALL_DEPTH):
            scores[f"recall_at_{k}"] = np.array(
                [
                    len(gains.keys() & set(documents[:k])) / max(1, len(gains))
                    for documents, gains in zip(ranked, search.relevant, strict=True)
                ]
            )
    scores["agreement_at_10"] = overlap(ranking[:, :DEPTH], truth)
    return scores
