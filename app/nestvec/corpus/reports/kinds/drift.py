"""Whether texts have moved away from a reference, as vectors see it, and which of them lie farthest.

Source: energy distance (Székely and Rizzo, 2013) with a permutation test.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.frame import (
    Figure,
    Figures,
    Need,
    Report,
    ReportTable,
    Task,
    embedded_blocks,
)
from nestvec.corpus.reports.statistics.resampling import mean_figure
from nestvec.corpus.reports.statistics.sampling import drawn_note
from nestvec.engine.types import Float64Array, FloatArray

MAX_SAMPLE: Final = 1000
PERMUTATIONS: Final = 999
PERMUTATION_BLOCK: Final = 111
ALARM_P: Final = 0.01
FAR_QUANTILE: Final = 0.99
FARTHEST: Final = 20
DISTANCE: Final = "energy distance"
FAR: Final = "texts farther than 99% of the reference"
BLOCK_ROWS: Final = 1024


def measure(task: Task) -> Figures:
    """Compare the texts with the reference: samples of both by a permutation test, then each text by its distance."""
    random = np.random.default_rng(task.seed)
    reference, texts = task.data.reference, task.data.texts
    drawn_rows = np.sort(random.permutation(len(reference))[:MAX_SAMPLE])
    base = task.subject.embed([reference[row] for row in drawn_rows.tolist()])
    drawn_rows = np.sort(random.permutation(len(texts))[:MAX_SAMPLE])
    sample = np.empty((len(drawn_rows), base.shape[1]), np.float32)
    away = np.empty(len(texts))
    for start, vectors in embedded_blocks(task, texts):
        away[start : start + len(vectors)] = _mean_distances(vectors, base)
        first, last = np.searchsorted(drawn_rows, (start, start + len(vectors)))
        sample[first:last] = vectors[drawn_rows[first:last] - start]
    distance, p = energy_test(base, sample, task.seed, task.check)
    own = _mean_distances(base, base, skips_self=True)
    edge = float(np.quantile(own, FAR_QUANTILE))
    order = np.argsort(-away, kind="stable")[:FARTHEST]
    rows: list[list[str | int | float]] = [[int(row), float(away[row])] for row in order]
    figures = [
        Figure(DISTANCE, distance, len(base) + len(sample), p=p, better="lower"),
        mean_figure("distance of texts from the reference", away, better="lower"),
        mean_figure("distance of the reference's texts from one another", own),
        mean_figure(FAR, (away > edge).astype(np.float64), unit="share", better="lower"),
    ]
    table = ReportTable("farthest texts", ("index", "mean distance"), rows)
    note = f"p is of {PERMUTATIONS} permutations of at most {MAX_SAMPLE} texts of each set."
    notes = [note, *drawn_note(len(reference), MAX_SAMPLE, "texts of the reference")]
    return Figures(figures, [table], notes)


def advise(figures: Figures) -> list[str]:
    """Raise the alarm where chance alone would do so once in a hundred times."""
    found = figures.get(DISTANCE)
    if found is None or found.p is None or found.p > ALARM_P:
        return []
    return [
        f"these texts differ from the reference (energy distance {found.value:.4f}, p {found.p:.3g}; chance gives p of "
        f"{ALARM_P:g} or less once in a hundred times), and {figures.value(FAR):.1%} lie farther than 99% of it: "
        "measure quality on the new texts before thresholds and maps that were fitted on the old ones are trusted"
    ]


def energy_test(
    first: FloatArray, second: FloatArray, seed: int, check: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """Return the energy distance of two sets of unit vectors `[N, D]`, `[M, D]`, and its permutation p.

    The sums over all arrangements are quadratic forms of one matrix of distances, so a block of permutations is one
    product of matrices.
    """
    pooled = np.concatenate([first, second]).astype(np.float32)
    distances = np.sqrt(np.maximum(2 - 2 * (pooled @ pooled.T), 0)).astype(np.float32)
    np.fill_diagonal(distances, 0)
    n, m = len(first), len(second)
    random = np.random.default_rng(seed)
    member = np.zeros((1, n + m), np.float32)
    member[0, :n] = 1
    observed = float(_energies(member, distances, n, m)[0])
    extreme = 0
    for start in range(0, PERMUTATIONS, PERMUTATION_BLOCK):
        check()
        count = min(PERMUTATION_BLOCK, PERMUTATIONS - start)
        shuffled = random.permuted(np.repeat(member, count, axis=0), axis=1)
        extreme += int((_energies(shuffled, distances, n, m) >= observed - 1e-9).sum())
    return observed, (1 + extreme) / (1 + PERMUTATIONS)


def _energies(
    members: NDArray[np.float32], distances: NDArray[np.float32], n: int, m: int
) -> Float64Array:
    """Return the energy distance of each arrangement `[K, N + M]` of 1 (first set) and 0 (second)."""
    to_first = members @ distances
    within_first = (to_first * members).sum(axis=1, dtype=np.float64)
    across = (to_first * (1 - members)).sum(axis=1, dtype=np.float64)
    total = float(distances.sum(dtype=np.float64))
    within_second = total - within_first - 2 * across
    energies: Float64Array = 2 * across / (n * m) - within_first / n**2 - within_second / m**2
    return energies


def _mean_distances(
    vectors: FloatArray, base: FloatArray, *, skips_self: bool = False
) -> Float64Array:
    """Return the mean distance of each unit vector from those of a base, `[N]`."""
    means = np.empty(len(vectors))
    others = max(1, len(base) - skips_self)
    for start in range(0, len(vectors), BLOCK_ROWS):
        cosines = vectors[start : start + BLOCK_ROWS] @ base.T
        distances = np.sqrt(np.maximum(2 - 2 * cosines, 0))
        if skips_self:
            rows = np.arange(len(distances))
            distances[rows, start + rows] = 0
        means[start : start + BLOCK_ROWS] = distances.sum(axis=1, dtype=np.float64) / others
    return means


REPORT: Final = Report(
    name="drift",
    title="Whether texts have moved away from a reference, and which lie farthest from it.",
    measure=measure,
    advise=advise,
    needs=(Need.TEXTS, Need.REFERENCE),
    source="energy distance (Székely and Rizzo, 2013), permutation test",
    min_items={Need.TEXTS: 20, Need.REFERENCE: 20},
)
