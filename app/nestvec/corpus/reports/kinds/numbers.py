"""Whether vectors know that 98 is nearer to 100 than 3 is: cosines of one sentence with different numbers in it."""

from typing import Final

import numpy as np

from nestvec.corpus.reports.frame import Figures, Report, Task
from nestvec.corpus.reports.statistics.resampling import pair_order_figure

NUMBERS: Final = (1, 2, 5, 10, 20, 50, 75, 100, 200, 500, 1000, 2000, 5000, 10_000)
SENTENCES: Final = (
    "The company has {} employees.",
    "It costs {} dollars.",
    "The bridge is {} metres long.",
)
DRAWS: Final = 500
ORDER: Final = "cosine against closeness of numbers (Spearman)"
GOOD_ORDER: Final = 0.7


def measure(task: Task) -> Figures:
    """Correlate cosines with closeness of numbers, -|log(a / b)|, over all pairs within each sentence."""
    count = len(NUMBERS)
    left, right = np.triu_indices(count, 1)
    closeness = -np.abs(np.subtract.outer(np.log(NUMBERS), np.log(NUMBERS)))[left, right]
    texts = [sentence.format(number) for sentence in SENTENCES for number in NUMBERS]
    vectors = task.subject.embed(texts).astype(np.float64)
    figures = []
    cosines = []
    for number, sentence in enumerate(SENTENCES):
        rows = vectors[number * count : (number + 1) * count]
        cosines.append((rows @ rows.T)[left, right])
        name = f"“{sentence.format('…')}”"
        figures.append(
            pair_order_figure(name, cosines[-1], closeness, count, draws=DRAWS, seed=task.seed)
        )
    mean = np.mean(cosines, axis=0)
    order = pair_order_figure(ORDER, mean, closeness, count, draws=DRAWS, seed=task.seed)
    return Figures([order, *figures])


def advise(figures: Figures) -> list[str]:
    """Warn where numbers cannot be searched by."""
    order = figures.value(ORDER)
    if order >= GOOD_ORDER:
        return []
    return [
        f"numbers are ordered by vectors to {order:.2f} only: keep amounts, dates and sizes in fields of their own, "
        "and filter by these"
    ]


REPORT: Final = Report(
    name="numbers",
    title="Whether vectors know which numbers are near one another.",
    measure=measure,
    advise=advise,
    source="numeracy of embeddings (arXiv:1909.07940) by cosines within one sentence",
)
