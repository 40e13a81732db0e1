"""How far one model can stand for another: order of pairs, neighbours kept, and what searches lose."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from nestvec.corpus.reports.frame import Figure, Figures, Need, Report, Subject, Task
from nestvec.corpus.reports.statistics.neighbours import nearest, overlap
from nestvec.corpus.reports.statistics.resampling import (
    mean_figure,
    pair_order_figure,
    paired_difference,
)
from nestvec.corpus.reports.statistics.sampling import drawn, drawn_note
from nestvec.corpus.reports.statistics.scores import ndcg
from nestvec.engine.types import Float64Array, FloatArray

# All pairs of so many texts are some 180,000.
PAIRED_TEXTS: Final = 600
NEIGHBOUR_TEXTS: Final = 5000
MAX_PAIRS: Final = 5000
NEIGHBOURS: Final = 10
DRAWS: Final = 200
TIMED_TEXTS: Final = 256
ORDER: Final = "order of pairs (Spearman)"
KEPT: Final = "neighbours kept of ten"
LOST: Final = "nDCG@10, first less second"
FASTER: Final = "texts a second, first over second"
GOOD_ORDER: Final = 0.9
GOOD_KEPT: Final = 0.8


def measure(task: Task) -> Figures:
    """Compare the first model with the second, on the same texts."""
    first, second = task.subject, task.other
    assert second is not None  # noqa: S101 - reports of two models are given two
    figures: list[Figure] = []
    data = task.data
    if data.texts:
        texts = drawn(data.texts, NEIGHBOUR_TEXTS, task.seed)
        paired = drawn(range(len(texts)), PAIRED_TEXTS, task.seed)
        vectors = [each.embed(texts) for each in (first, second)]
        task.check()
        figures.append(_order(vectors[0][paired], vectors[1][paired], task.seed))
        figures.append(_neighbours(vectors[0], vectors[1]))
    if data.pairs:
        figures += _searches(task, first, second, drawn(data.pairs, MAX_PAIRS, task.seed))
    figures += _speeds(task, first, second)
    notes = [
        f"First: {first.name}, space {first.space}; second: {second.name}, space {second.space}.",
        *drawn_note(len(data.texts), NEIGHBOUR_TEXTS, "texts"),
        *drawn_note(
            min(len(data.texts), NEIGHBOUR_TEXTS), PAIRED_TEXTS, "texts, for the order of pairs"
        ),
        *drawn_note(len(data.pairs), MAX_PAIRS, "pairs"),
    ]
    return Figures(figures, notes=notes)


def advise(figures: Figures) -> list[str]:
    """Say whether the first may stand for the second."""
    lines = []
    order, kept, lost = figures.get(ORDER), figures.get(KEPT), figures.get(LOST)
    if order is not None and kept is not None:
        agrees = order.value >= GOOD_ORDER and kept.value >= GOOD_KEPT
        lines.append(
            f"the order of pairs agrees to {order.value:.2f} and {kept.value:.0%} of neighbours are kept: "
            + (
                "one may stand for the other"
                if agrees
                else "they see these texts differently; judge by pairs of your own which is right"
            )
        )
    if lost is not None and lost.low is not None and lost.high is not None:
        if lost.high < 0:
            lines.append(f"the first finds less: {lost.value:+.3f} nDCG@10 (p {lost.p:.3g})")
        elif lost.low > 0:
            lines.append(f"the first finds more: {lost.value:+.3f} nDCG@10 (p {lost.p:.3g})")
        else:
            lines.append(
                f"no difference in what they find is shown by {lost.n} queries "
                f"({lost.low:+.3f} to {lost.high:+.3f} nDCG@10)"
            )
    return lines


def _order(first: FloatArray, second: FloatArray, seed: int) -> Figure:
    """Return how the cosines of all pairs of texts rank alike."""
    count = len(first)
    left, right = np.triu_indices(count, 1)
    a, b = ((each @ each.T)[left, right].astype(np.float64) for each in (first, second))
    return pair_order_figure(ORDER, a, b, count, draws=DRAWS, seed=seed)


def _neighbours(first: FloatArray, second: FloatArray) -> Figure:
    kept = overlap(
        nearest(first, first, NEIGHBOURS, skips_self=True),
        nearest(second, second, NEIGHBOURS, skips_self=True),
    )
    return mean_figure(KEPT, kept, unit="share", better="higher")


def _searches(
    task: Task, first: Subject, second: Subject, pairs: Sequence[tuple[str, str]]
) -> list[Figure]:
    """Return what each finds, and the paired difference."""
    scores = []
    figures = []
    for name, subject in (("first", first), ("second", second)):
        task.check()
        values = answer_ndcg(subject, pairs)
        scores.append(values)
        figures.append(mean_figure(f"nDCG@10, {name}", values, unit="share", better="higher"))
    value, low, high, p = paired_difference(scores[1], scores[0])
    figures.append(Figure(LOST, value, len(scores[0]), low, high, p, "share"))
    return figures


def answer_ndcg(subject: Subject, pairs: Sequence[tuple[str, str]]) -> Float64Array:
    """Return the nDCG@10 of each query's own answer among all answers, `[Q]`."""
    queries = subject.embed([query for query, _ in pairs], "query")
    answers = subject.embed([answer for _, answer in pairs], "passage")
    ranking = nearest(queries, answers, min(NEIGHBOURS, len(answers)))
    return np.array(
        [ndcg(row, {own: 1.0}, k=NEIGHBOURS) for own, row in enumerate(ranking.tolist())],
        np.float64,
    )


def _speeds(task: Task, first: Subject, second: Subject) -> list[Figure]:
    """Return texts a second of each by the same texts, where both can be timed; taken in turns, best of two."""
    texts = [*task.data.texts, *(text for pair in task.data.pairs for text in pair)][:TIMED_TEXTS]
    if first.time_run is None or second.time_run is None:
        return []
    best = [float("inf")] * 2
    for _ in range(2):
        for number, run in enumerate((first.time_run, second.time_run)):
            best[number] = min(best[number], run(texts).elapsed_s)
    rates = [len(texts) / max(elapsed_s, 1e-9) for elapsed_s in best]
    figures = [
        Figure(f"texts a second, {name}", rate, len(texts), unit="1/s", better="higher")
        for name, rate in zip(("first", "second"), rates, strict=True)
    ]
    return [*figures, Figure(FASTER, rates[0] / rates[1], len(texts), better="higher")]


REPORT: Final = Report(
    name="compare",
    title="How far the first model can stand for the second: order of pairs, neighbours, searches, speed.",
    measure=measure,
    advise=advise,
    needs_one_of=(Need.TEXTS, Need.PAIRS),
    source="agreement of students and teachers by pair order and neighbours (arXiv:1908.05161), paired sign-flip test",
    models=2,
    min_items={Need.TEXTS: 30, Need.PAIRS: 20},
)
