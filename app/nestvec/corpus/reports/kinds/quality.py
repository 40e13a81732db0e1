"""What fewer dimensions and smaller dtypes cost on these texts, by vectors as any client gets them.

`nestvec quality` measures more in this process: layers, maps, two-stage searches, and standard sets.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.frame import Figure, Figures, Need, Report, ReportTable, Task
from nestvec.corpus.reports.statistics.bootstrap import Resamples
from nestvec.corpus.reports.statistics.neighbours import nearest, nearest_bits, overlap
from nestvec.corpus.reports.statistics.resampling import mean_figure
from nestvec.corpus.reports.statistics.scores import ndcg
from nestvec.corpus.reports.statistics.types import Ranking
from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors.postprocess import finish

DEPTH: Final = 10
SIZES: Final = (1024, 768, 512, 384, 256, 128, 64, 32)
DTYPES: Final = ("float", "int8", "binary")
INT8: Final = 127
MAX_LOSS: Final = 0.02
MAX_TEXTS: Final = 20_000
MAX_QUERIES: Final = 1000


def measure(task: Task) -> Figures:
    """Score every size and dtype: nDCG@10 of pairs, or how many neighbours of whole vectors are kept."""
    data, embed = task.data, task.subject.embed
    random = np.random.default_rng(task.seed)
    if data.pairs:
        pairs = data.pairs[:MAX_TEXTS]
        documents = embed([answer for _, answer in pairs], "passage")
        queries = embed([query for query, _ in pairs], "query")
        own = np.sort(random.permutation(len(pairs))[:MAX_QUERIES])
        queries = queries[own]
    else:
        documents = embed(data.texts[:MAX_TEXTS])
        own = np.sort(random.permutation(len(documents))[:MAX_QUERIES])
        queries = documents[own]
    metric = "nDCG@10" if data.pairs else "neighbours kept of ten"
    width = documents.shape[1]
    truth: Ranking | None = None
    whole: Float64Array | None = None
    figures: list[Figure] = []
    rows: list[list[str | int | float]] = []
    for size in (width, *(size for size in SIZES if size < width)):
        for dtype in DTYPES:
            if dtype == "binary" and size % 8:
                continue
            task.check()
            ranking = _ranking(queries, documents, size, dtype, skips=not data.pairs, own=own)
            truth = ranking if truth is None else truth
            values = (
                _gains(ranking, own) if data.pairs else overlap(ranking, truth).astype(np.float64)
            )
            whole = values if whole is None else whole
            figure = mean_figure(
                f"{metric}, {size} dimensions, {dtype}", values, unit="share", better="higher"
            )
            figures.append(figure)
            rows.append([size, dtype, _bytes(size, dtype), figure.value, *_loss(whole, values)])
    heads = ("dimensions", "dtype", "bytes", metric, "loss", "loss, low", "loss, high")
    return Figures(figures, [ReportTable("what each form loses", heads, rows)])


def advise(figures: Figures) -> list[str]:
    """Name the smallest form whose loss is surely within 2%."""
    rows = [row for table in figures.tables for row in table.rows]
    good = [row for row in rows if float(row[6]) <= MAX_LOSS]
    if len(good) <= 1:
        return [f"every smaller form may lose more than {MAX_LOSS:.0%}: keep whole float vectors"]
    best = min(good, key=lambda row: float(row[2]))
    return [
        f"{best[0]} dimensions as {best[1]} ({best[2]} bytes instead of {rows[0][2]}) lose {float(best[4]):.1%} "
        f"({float(best[5]):.1%} to {float(best[6]):.1%})"
    ]


def _ranking(
    queries: FloatArray,
    documents: FloatArray,
    size: int,
    dtype: str,
    *,
    skips: bool,
    own: NDArray[np.int64],
) -> Ranking:
    """Return the nearest documents of each query, `[Q, DEPTH]`, in a form; never itself."""
    stored = [_stored(vectors, size, dtype) for vectors in (queries, documents)]
    depth = min(DEPTH + skips, len(documents))
    if dtype == "binary":
        ranking = nearest_bits(stored[0], stored[1], depth)
    else:
        ranking = nearest(stored[0].astype(np.float32), stored[1].astype(np.float32), depth)
    if not skips:
        return ranking
    is_other = ranking != own[:, None]
    # Where a query did not find itself, its last result goes.
    is_other[is_other.all(axis=1), -1] = False
    others: Ranking = ranking[is_other].reshape(len(ranking), -1)
    return others


def _stored(vectors: FloatArray, size: int, dtype: str) -> NDArray[Any]:
    unit = finish(vectors, dimensions=size, normalize=True)
    if dtype == "int8":
        scale = np.abs(unit).max() or 1.0
        return np.round(unit / scale * INT8).astype(np.int8)
    return np.packbits(unit > 0, axis=1) if dtype == "binary" else unit


def _gains(ranking: Ranking, own: NDArray[np.int64]) -> Float64Array:
    return np.array(
        [
            ndcg(row, {right: 1.0}, k=DEPTH)
            for row, right in zip(ranking.tolist(), own.tolist(), strict=True)
        ],
        np.float64,
    )


def _loss(whole: Float64Array, values: Float64Array) -> tuple[float, float, float]:
    """Return the loss relative to whole vectors with its interval, over the same resampled queries."""
    resamples = Resamples(len(whole))
    base = max(float(whole.mean()), 1e-9)
    draws = 1 - resamples.mean(values) / np.maximum(resamples.mean(whole), 1e-9)
    estimate = resamples.estimate(1 - float(values.mean()) / base, draws)
    return estimate.score, estimate.low, estimate.high


def _bytes(size: int, dtype: str) -> int:
    return {"float": 4 * size, "int8": size, "binary": size // 8}[dtype]


REPORT: Final = Report(
    name="quality",
    title="What fewer dimensions and smaller dtypes cost on these texts.",
    measure=measure,
    advise=advise,
    needs_one_of=(Need.PAIRS, Need.TEXTS),
    source="paired percentile bootstrap of losses (Efron, 1979)",
    min_items={Need.PAIRS: 20, Need.TEXTS: 50},
)
