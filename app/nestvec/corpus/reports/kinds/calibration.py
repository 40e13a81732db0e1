"""What a cosine means on these texts: thresholds that hold, and how many candidates hold the right answer.

Source: split conformal prediction (Vovk et al.; Angelopoulos and Bates, arXiv:2107.07511).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.frame import Figure, Figures, Need, Report, Task
from nestvec.corpus.reports.statistics.resampling import mean_figure
from nestvec.corpus.reports.statistics.sampling import drawn, drawn_note
from nestvec.engine.types import Float64Array

SPLITS: Final = 1000
COVERAGES: Final = (0.8, 0.9, 0.95)
WRONG_SHARE: Final = 0.01
MAX_PAIRS: Final = 2000
THRESHOLD: Final = "cosine that 1% of wrong pairs reach"
PASSED: Final = "right pairs that reach it"


def measure(task: Task) -> Figures:
    """Calibrate on half of the pairs, look at the other half, a thousand times over."""
    pairs = drawn(task.data.pairs, MAX_PAIRS, task.seed)
    queries = task.subject.embed([query for query, _ in pairs], "query")
    answers = task.subject.embed([answer for _, answer in pairs], "passage")
    cosines = (queries @ answers.T).astype(np.float64)
    right = np.diagonal(cosines).copy()
    wrong = cosines[~np.eye(len(pairs), dtype=bool)]
    threshold = float(np.quantile(wrong, 1 - WRONG_SHARE))
    figures = [
        Figure(THRESHOLD, threshold, len(wrong), unit="cosine"),
        mean_figure(PASSED, right >= threshold, unit="share", better="higher"),
    ]
    everything = np.sort(cosines, axis=None)
    random = np.random.default_rng(task.seed)
    splits = [random.permutation(len(pairs)) for _ in range(SPLITS)]
    for coverage in COVERAGES:
        task.check()
        figures += _conformal(right, everything, splits, coverage)
    note = (
        f"Means of {SPLITS} halvings of {len(pairs)} pairs; of these 95% fall within the intervals."
    )
    return Figures(figures, notes=[note, *drawn_note(len(task.data.pairs), MAX_PAIRS, "pairs")])


def advise(figures: Figures) -> list[str]:
    """Give the thresholds as settings."""
    size = figures.value("candidates for a coverage of 90%")
    return [
        f"treat a cosine of {figures.value(THRESHOLD):.2f} or more as a match: 1% of wrong pairs reach it, and "
        f"{figures.value(PASSED):.0%} of right ones",
        f"for the right answer to be among them nine times of ten, keep the candidates at or above "
        f"{figures.value('cosine for a coverage of 90%'):.2f}: {size:.1f} on average",
    ]


def _conformal(
    right: Float64Array,
    everything: Float64Array,
    splits: Sequence[NDArray[np.int64]],
    coverage: float,
) -> list[Figure]:
    """Return threshold, coverage and size of the sets that are to hold the right answer so often."""
    count = len(right)
    half = count // 2
    covered, thresholds = np.empty(len(splits)), np.empty(len(splits))
    for number, order in enumerate(splits):
        known, unseen = order[:half], order[half:]
        # The k-th smallest of n right cosines, so that an exchangeable one falls below with 1 - coverage at most.
        place = int(np.floor((half + 1) * (1 - coverage))) - 1
        edge = -np.inf if place < 0 else float(np.sort(right[known])[place])
        covered[number] = (right[unseen] >= edge).mean()
        thresholds[number] = edge
    sizes = (len(everything) - np.searchsorted(everything, thresholds)) / count
    label = f"coverage of {coverage:.0%}"
    return [
        _spread(f"cosine for a {label}", thresholds, count, "cosine"),
        _spread(f"answers held at a {label}", covered, count, "share"),
        _spread(f"candidates for a {label}", sizes, count, ""),
    ]


def _spread(name: str, values: Float64Array, count: int, unit: str) -> Figure:
    low, high = np.quantile(values, [0.025, 0.975]).tolist()
    mean = float(values.mean())
    return Figure(name, mean, count, min(low, mean), max(high, mean), unit=unit)


REPORT: Final = Report(
    name="calibration",
    title="What a cosine means on these texts: thresholds, and sets of candidates that hold the right answer.",
    measure=measure,
    advise=advise,
    needs=(Need.PAIRS,),
    source="split conformal prediction (arXiv:2107.07511)",
    min_items={Need.PAIRS: 40},
)
