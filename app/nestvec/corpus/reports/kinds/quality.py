"""What fewer dimensions and smaller dtypes cost on these texts, by vectors as any client gets them.

`nestvec quality` measures more in this process, by the same code: layers, maps, two-stage searches, and standard sets.
"""

from typing import Final

import numpy as np

from nestvec.corpus.reports.forms.measure import Grid, measure_search
from nestvec.corpus.reports.forms.searches import EmbeddedSearch
from nestvec.corpus.reports.forms.variants import DTYPES, USUAL_DIMENSIONS, VectorSource
from nestvec.corpus.reports.frame import Figure, Figures, Need, Report, ReportTable, Task
from nestvec.corpus.reports.statistics.sampling import drawn, drawn_note
from nestvec.engine.vectors.quantization import Quantizer

# What is measured, by whether there are pairs: the metric, and what figures call it.
JUDGED: Final = ("ndcg_at_10", "nDCG@10")
UNJUDGED: Final = ("agreement_at_10", "neighbours kept of ten")
MAX_LOSS: Final = 0.02
MAX_TEXTS: Final = 20_000
MAX_QUERIES: Final = 1000


def measure(task: Task) -> Figures:
    """Score every size and dtype: nDCG@10 of pairs, or how many neighbours of whole vectors are kept."""
    search, width, notes = _search(task)
    quantizer = task.subject.quantizer or Quantizer()
    source = VectorSource(0, None, "full", quantizer, width)
    sizes = [width, *(size for size in USUAL_DIMENSIONS if size < width)]
    metric, words = JUDGED if task.data.pairs else UNJUDGED
    figures: list[Figure] = []
    rows: list[list[str | int | float]] = []
    for score in measure_search(search, Grid([source], sizes, tuple(DTYPES)), task.check):
        if score.metric != metric:
            continue
        form, estimate, loss = score.variant, score.estimate, score.loss
        figures.append(
            Figure(
                f"{words}, {form.dimensions} dimensions, {form.dtype}",
                estimate.score,
                estimate.n,
                estimate.low,
                estimate.high,
                unit="share",
                better="higher",
                values=score.values,
            )
        )
        row = (form.dimensions, form.dtype, form.bytes, estimate.score)
        rows.append([*row, loss.score, loss.low, loss.high])
    heads = ("dimensions", "dtype", "bytes", words, "loss", "loss, low", "loss, high")
    return Figures(figures, [ReportTable("what each form loses", heads, rows)], notes)


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


def _search(task: Task) -> tuple[EmbeddedSearch, int, list[str]]:
    """Return the search that is measured, the size of whole vectors, and what a reader has to know of the texts."""
    data, embed = task.data, task.subject.embed
    what = "pairs" if data.pairs else "texts"
    notes = drawn_note(len(data.pairs or data.texts), MAX_TEXTS, what)
    if data.pairs:
        pairs = drawn(data.pairs, MAX_TEXTS, task.seed)
        documents = embed([answer for _, answer in pairs], "passage")
        queries = embed([query for query, _ in pairs], "query")
    else:
        documents = queries = embed(drawn(data.texts, MAX_TEXTS, task.seed))
    notes += drawn_note(len(documents), MAX_QUERIES, f"{what}, as queries")
    random = np.random.default_rng(task.seed)
    own = np.sort(random.permutation(len(documents))[:MAX_QUERIES])
    if data.pairs:
        queries = queries[own]
    search = EmbeddedSearch(
        data.source,
        lambda source: queries,
        lambda source: documents,
        len(own),
        [{row: 1.0} for row in own.tolist()] if data.pairs else (),
        None if data.pairs else own,
    )
    return search, documents.shape[1], notes


REPORT: Final = Report(
    name="quality",
    title="What fewer dimensions and smaller dtypes cost on these texts.",
    measure=measure,
    advise=advise,
    needs_one_of=(Need.PAIRS, Need.TEXTS),
    source="paired percentile bootstrap of losses (Efron, 1979)",
    min_items={Need.PAIRS: 20, Need.TEXTS: 50},
)
