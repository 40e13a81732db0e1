"""Scores of every variant on every task, from raw vectors of one pass."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray
from nestvec.tools.quality.bootstrap import Estimate, Resamples
from nestvec.tools.quality.geometry import Geometry
from nestvec.tools.quality.neighbours import Ranking, among, nearest, nearest_bits, overlap
from nestvec.tools.quality.scores import ndcg, ranks
from nestvec.tools.quality.tasks import PairTask, RetrievalTask
from nestvec.tools.quality.variants import Source, Variant, codes, cut, similarities

Wide = NDArray[np.float64]
DEPTH: Final = 10
DEEP: Final = 100
OVERSAMPLING: Final = (1, 2, 4, 10)
SHORT_PREFIXES: Final = (32, 64, 128)


@dataclass(frozen=True, slots=True)
class Figure:
    """A variant's score on a task.

    Attributes:
        loss: Relative to full float vectors of the same task, with its own interval; paired.
    """

    task: str
    metric: str
    variant: Variant
    estimate: Estimate
    loss: Estimate


@dataclass(frozen=True, slots=True)
class Funnel:
    """A search in two stages.

    Attributes:
        first: What the first stage compares.
        second: What its candidates are compared by.
        oversampling: Candidates for each of the ten that are wanted.
        recall: Share of the ten that full float vectors find.
        first_bytes: Of a vector in the first stage, which reads all of them; second likewise, which reads few.
    """

    task: str
    first: str
    second: str
    oversampling: int
    recall: Estimate
    first_bytes: int
    second_bytes: int


@dataclass(slots=True)
class Measured:
    """All of a report's scores.

    Attributes:
        geometries: Of full vectors of documents, by task.
    """

    figures: list[Figure] = field(default_factory=list)
    funnels: list[Funnel] = field(default_factory=list)
    geometries: dict[str, Geometry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grid:
    """What is measured.

    Attributes:
        sources: The full one first.
        dimensions: Falling; a source's own are left out where it has fewer, and bits need a multiple of 8.
        dtypes: Keys of `variants.DTYPES`.
    """

    sources: Sequence[Source]
    dimensions: Sequence[int]
    dtypes: Sequence[str]

    def variants(self) -> Iterable[tuple[Source, int, str]]:
        """Every one, the full one first."""
        for source in self.sources:
            for size in self.dimensions:
                for dtype in self.dtypes:
                    if size <= source.width and (dtype != "binary" or size % 8 == 0):
                        yield source, size, dtype


Raw = Callable[[Source], FloatArray]  # a source's pooled vectors, (N, H)


def measure_pairs(name: str, task: PairTask, first: Raw, second: Raw, grid: Grid) -> list[Figure]:
    """Spearman of similarity with gold."""
    resamples, gold = Resamples(len(task.gold)), ranks(task.gold)
    found: list[Figure] = []
    reference: Wide | None = None
    for source, size, dtype in grid.variants():
        one, other = (
            codes(cut(source.vectors(raw(source)), size), dtype, source.quantiser)
            for raw in (first, second)
        )
        own = ranks(similarities(one, other, dtype))
        score = float(np.corrcoef(own, gold)[0, 1])
        draws = resamples.correlation(own, gold)
        reference = draws if reference is None else reference
        base = found[0].estimate.score if found else score
        lost = resamples.estimate(1 - score / base, 1 - draws / reference)
        variant = Variant(source, size, dtype)
        found.append(Figure(name, "spearman", variant, resamples.estimate(score, draws), lost))
    return found


@dataclass(frozen=True, slots=True)
class Search:
    """Queries and documents to search, judged or not.

    Attributes:
        relevant: Gains of documents by place, for each query; none where nobody judged.
        skips_self: Whether each query is one of the documents, by the same place.
    """

    name: str
    queries: Raw
    documents: Raw
    count: int
    relevant: Sequence[Mapping[int, float]] = ()
    query_places: NDArray[np.int64] | None = None


def judged(name: str, task: RetrievalTask, queries: Raw, documents: Raw) -> Search:
    """A search with judgements."""
    places = {document: place for place, document in enumerate(task.document_ids)}
    relevant = [
        {places[d]: gain for d, gain in task.relevant[query].items() if d in places}
        for query in task.query_ids
    ]
    return Search(name, queries, documents, len(relevant), relevant)


def measure_search(search: Search, grid: Grid) -> list[Figure]:
    """How many of the neighbours of full float vectors are found, and, where judged, nDCG@10 and recall@100."""
    resamples = Resamples(search.count)
    truth: Ranking | None = None
    bases: dict[str, tuple[float, Wide]] = {}
    found: list[Figure] = []
    for source, size, dtype in grid.variants():
        order = _order(search, source, size, dtype)
        truth = order[:, :DEPTH] if truth is None else truth
        for metric, values in _scores(search, order, truth).items():
            score, draws = float(values.mean()), resamples.mean(values)
            base, reference = bases.setdefault(metric, (score, draws))
            lost = resamples.estimate(
                1 - score / max(base, 1e-9), 1 - draws / np.maximum(reference, 1e-9)
            )
            estimate = resamples.estimate(score, draws)
            found.append(Figure(search.name, metric, Variant(source, size, dtype), estimate, lost))
    return found


def measure_funnels(search: Search, source: Source) -> list[Funnel]:
    """Two-stage searches: a cheap comparison of all documents, a better one of its candidates."""
    resamples = Resamples(search.count)
    size = source.vectors(search.documents(source)[:1]).shape[1]
    queries, documents = (
        cut(source.vectors(raw(source)), size) for raw in (search.queries, search.documents)
    )
    queries = queries if search.query_places is None else queries[search.query_places]
    truth = _without_self(nearest(queries, documents, DEPTH + 1), search, DEPTH)
    int8 = codes(documents, "int8", source.quantiser).astype(np.float32)
    seconds = {"float": (documents, 4 * size), "int8": (int8, size)}
    found = []
    for first, first_bytes, ranked in _first_stages(queries, documents, source):
        deepest = _without_self(
            ranked(DEPTH * OVERSAMPLING[-1] + 1), search, DEPTH * OVERSAMPLING[-1]
        )
        for times in OVERSAMPLING:
            candidates = deepest[:, : DEPTH * times]
            for second, (vectors, second_bytes) in seconds.items():
                chosen = among(queries, vectors, candidates, DEPTH)
                values = overlap(chosen, truth)
                recall = resamples.estimate(float(values.mean()), resamples.mean(values))
                found.append(
                    Funnel(search.name, first, second, times, recall, first_bytes, second_bytes)
                )
    return found


def _first_stages(
    queries: FloatArray, documents: FloatArray, source: Source
) -> Iterable[tuple[str, int, Callable[[int], Ranking]]]:
    """Name, bytes a document, and what ranks them."""
    size = documents.shape[1]
    if size % 8 == 0:
        bits = codes(documents, "binary", source.quantiser)
        query_bits = codes(queries, "binary", source.quantiser)
        signs = np.where(documents > 0, np.float32(1), np.float32(-1))
        yield "float query, binary documents", size // 8, lambda k: nearest(queries, signs, k)
        yield "binary both (Hamming)", size // 8, lambda k: nearest_bits(query_bits, bits, k)
    for prefix in SHORT_PREFIXES:
        if prefix < size:
            short = cut(queries, prefix), cut(documents, prefix)
            yield (
                f"first {prefix} dimensions, float",
                4 * prefix,
                lambda k, short=short: nearest(*short, k),  # type: ignore[misc]
            )


def _order(search: Search, source: Source, size: int, dtype: str) -> Ranking:
    """The nearest hundred documents of each query."""
    unit = cut(source.vectors(search.documents(source)), size)
    asked = unit if search.query_places is not None else None
    queries = cut(source.vectors(search.queries(source)), size) if asked is None else asked
    if search.query_places is not None:
        queries = queries[search.query_places]
    one, other = (codes(v, dtype, source.quantiser) for v in (queries, unit))
    depth = min(DEEP + 1, len(unit))
    if dtype == "binary":
        order = nearest_bits(one, other, depth)
    else:
        order = nearest(one.astype(np.float32), other.astype(np.float32), depth)
    return _without_self(order, search, min(DEEP, depth - (search.query_places is not None)))


def _without_self(order: Ranking, search: Search, k: int) -> Ranking:
    """Rankings without the query's own document, the first k."""
    if search.query_places is None:
        return order[:, :k]
    kept = order != search.query_places[:, None]
    # Where a query did not find itself, its last goes.
    kept[kept.all(axis=1), -1] = False
    own: Ranking = order[kept].reshape(len(order), -1)[:, :k]
    return own


def _scores(search: Search, order: Ranking, truth: Ranking) -> dict[str, Wide]:
    """By metric, each query's."""
    found: dict[str, Wide] = {}
    if search.relevant:
        ranked = order.tolist()
        found["ndcg_at_10"] = np.array(
            [ndcg(own, gains, k=DEPTH) for own, gains in zip(ranked, search.relevant, strict=True)]
        )
        for k in (DEPTH, DEEP):
            found[f"recall_at_{k}"] = np.array(
                [
                    len(gains.keys() & set(own[:k])) / max(1, len(gains))
                    for own, gains in zip(ranked, search.relevant, strict=True)
                ]
            )
    found["agreement_at_10"] = overlap(order[:, :DEPTH], truth)
    return found
