"""Searches in two stages: a cheap comparison of all documents, then a better one of its candidates.

Source: adaptive retrieval in Matryoshka Representation Learning (arXiv:2205.13147).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from nestvec.corpus.reports.forms.searches import DEPTH, EmbeddedSearch, without_self
from nestvec.corpus.reports.forms.variants import VectorSource, codes, unit_prefix
from nestvec.corpus.reports.statistics.bootstrap import Estimate, Resamples
from nestvec.corpus.reports.statistics.neighbours import nearest, nearest_bits, overlap, rescore
from nestvec.corpus.reports.statistics.types import Ranking
from nestvec.engine.types import FloatArray

OVERSAMPLING: Final = (1, 2, 4, 10)
SHORT_PREFIXES: Final = (32, 64, 128)


@dataclass(frozen=True, slots=True)
class Funnel:
    """A search in two stages; field names are keys of report.json.

    Attributes:
        task: The task's name in the report.
        first: What the first stage compares.
        second: The dtype by which its candidates are compared.
        oversampling: Candidates of the first stage for each of the ten results.
        recall: Share of the ten nearest by full float vectors that are found.
        first_bytes: Bytes of a vector in the first stage, which reads all of them.
        second_bytes: Bytes of a vector in the second stage, which reads only the candidates.
    """

    task: str
    first: str
    second: str
    oversampling: int
    recall: Estimate
    first_bytes: int
    second_bytes: int


def measure_funnels(search: EmbeddedSearch, source: VectorSource) -> list[Funnel]:
    """Return the recall of each pair of stages at each oversampling."""
    resamples = Resamples(search.count)
    size = source.vectors(search.documents(source)[:1]).shape[1]
    queries, documents = (
        unit_prefix(source.vectors(pooled(source)), size)
        for pooled in (search.queries, search.documents)
    )
    queries = queries if search.query_rows is None else queries[search.query_rows]
    truth = without_self(nearest(queries, documents, DEPTH + 1), search, DEPTH)
    int8 = codes(documents, "int8", source.quantizer).astype(np.float32)
    second_stages = {"float": (documents, 4 * size), "int8": (int8, size)}
    max_candidates = DEPTH * OVERSAMPLING[-1]
    funnels = []
    for first, first_bytes, rank in _first_stages(queries, documents, source):
        ranking = without_self(rank(max_candidates + 1), search, max_candidates)
        for oversampling in OVERSAMPLING:
            candidates = ranking[:, : DEPTH * oversampling]
            for second, (vectors, second_bytes) in second_stages.items():
                results = rescore(queries, vectors, candidates, DEPTH)
                values = overlap(results, truth)
                recall = resamples.estimate(float(values.mean()), resamples.mean(values))
                stages = (search.name, first, second, oversampling)
                funnels.append(Funnel(*stages, recall, first_bytes, second_bytes))
    return funnels


def _first_stages(
    queries: FloatArray, documents: FloatArray, source: VectorSource
) -> Iterable[tuple[str, int, Callable[[int], Ranking]]]:
    """Yield each first stage: its name, its bytes for each document, and a function that ranks the K nearest."""
    size = documents.shape[1]
    if size % 8 == 0:
        bits = codes(documents, "binary", source.quantizer)
        query_bits = codes(queries, "binary", source.quantizer)
        signs = np.where(documents > 0, np.float32(1), np.float32(-1))
        yield "float query, binary documents", size // 8, lambda k: nearest(queries, signs, k)
        yield "binary both (Hamming)", size // 8, lambda k: nearest_bits(query_bits, bits, k)
    for prefix in SHORT_PREFIXES:
        if prefix < size:
            short = unit_prefix(queries, prefix), unit_prefix(documents, prefix)
            yield (
                f"first {prefix} dimensions, float",
                4 * prefix,
                lambda k, short=short: nearest(*short, k),  # type: ignore[misc]
            )
