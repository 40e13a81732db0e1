"""Texts that are there twice, exactly or nearly, and texts that are like none of the others."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.frame import (
    MAX_ROWS,
    Figures,
    Need,
    Report,
    ReportTable,
    Task,
    embedded_blocks,
)
from nestvec.corpus.reports.statistics.resampling import count_figure, mean_figure
from nestvec.corpus.reports.statistics.sampling import drawn_note
from nestvec.engine.types import Float64Array, FloatArray

NEAR_COSINE: Final = 0.97
NEIGHBOURS: Final = 10
# Neighbours are looked for among so many texts; duplicates among all.
NEIGHBOUR_SAMPLE: Final = 10_000
# Of normally distributed similarities one in 4,300 lies so many deviations below the median.
OUTLIER_DEVIATIONS: Final = 3.5
MAD_TO_DEVIATION: Final = 1.4826
BLOCK_CELLS: Final = 4_000_000
# Vectors that are compared with as many others at a time.
SQUARE_ROWS: Final = 2048
MAX_FLOAT32_BYTES: Final = 128 << 20
SPACES: Final = re.compile(r"\s+")
EXACT: Final = "texts that are exact copies of an earlier one"
NEAR: Final = "further texts nearly like an earlier one"
OUTLIERS: Final = "texts unlike all others"
SIMILARITY: Final = "cosine to the ten nearest"
MAX_COPIES: Final = 0.01


def measure(task: Task) -> Figures:
    """Find copies by their normalised text, near copies by cosine, and outliers by their nearest neighbours."""
    texts = task.data.texts
    is_copy = exact_copies(texts)
    vectors = _embedded(task)
    partners = near_copies(vectors, is_copy, task)
    near = np.flatnonzero(partners >= 0)
    similarity = _neighbour_similarity(vectors, task)
    scores = robust_deviations(similarity)
    outliers = np.flatnonzero(scores < -OUTLIER_DEVIATIONS)
    outliers = outliers[np.argsort(scores[outliers], kind="stable")]
    n = len(texts)
    figures = [
        count_figure(EXACT, int(is_copy.sum()), n, better="lower"),
        count_figure(NEAR, len(near), n, better="lower"),
        count_figure(OUTLIERS, len(outliers), n),
        mean_figure(SIMILARITY, similarity, unit="cosine"),
    ]
    copies: list[list[str | int | float]] = [
        [int(row), int(partners[row]), float(_rows(vectors, row) @ _rows(vectors, partners[row]))]
        for row in near[:MAX_ROWS]
    ]
    far: list[list[str | int | float]] = [
        [int(row), float(similarity[row]), float(scores[row])] for row in outliers[:MAX_ROWS]
    ]
    tables = [
        ReportTable("nearly alike", ("index", "earlier index", "cosine"), copies),
        ReportTable("unlike all others", ("index", "cosine to the ten nearest", "deviations"), far),
    ]
    notes = [
        f"Nearly alike: a cosine of at least {NEAR_COSINE}. Unlike: {OUTLIER_DEVIATIONS} deviations below the median "
        "similarity, where one in 4,300 normal ones lies.",
        *drawn_note(n, NEIGHBOUR_SAMPLE, "texts, among which neighbours were looked for"),
    ]
    if vectors.dtype == np.float16:
        notes.append("Vectors were held in float16: cosines are right to 0.001.")
    return Figures(figures, [table for table in tables if table.rows], notes)


def advise(figures: Figures) -> list[str]:
    """Tell what to look at."""
    lines = []
    found = figures.get(EXACT)
    copies = figures.value(EXACT) + figures.value(NEAR)
    if found is not None and copies / found.n > MAX_COPIES:
        lines.append(
            f"{copies / found.n:.1%} of the texts are copies or nearly so: they take room and crowd the first results; "
            "keep one of each"
        )
    if figures.value(OUTLIERS):
        lines.append(
            f"{figures.value(OUTLIERS):.0f} of the texts have no others like them: look at those of "
            "the table for other languages, markup or broken extraction"
        )
    return lines


def robust_deviations(values: Float64Array) -> Float64Array:
    """Return how many deviations each value lies from the median, `[N]`, where outliers move neither of the two.

    Source: the modified z-score of Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993).
    """
    middle = np.median(values)
    deviation = float(np.median(np.abs(values - middle))) * MAD_TO_DEVIATION
    scores: Float64Array = (values - middle) / max(deviation, 1e-9)
    return scores


def exact_copies(texts: Sequence[str]) -> NDArray[np.bool_]:
    """Return whether each text equals an earlier one, `[N]`, letters' case, spaces and compatible forms aside."""
    seen: set[bytes] = set()
    is_copy = np.zeros(len(texts), bool)
    for row, text in enumerate(texts):
        plain = SPACES.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
        digest = hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        is_copy[row] = digest in seen
        seen.add(digest)
    return is_copy


def near_copies(vectors: FloatArray, is_copy: NDArray[np.bool_], task: Task) -> NDArray[np.int64]:
    """Return the first earlier text that each text is nearly like, `[N]`; -1 for none, and for exact copies."""
    count = len(vectors)
    partners = np.full(count, -1)
    for start in range(0, count, SQUARE_ROWS):
        task.check()
        stop = min(start + SQUARE_ROWS, count)
        later = _rows(vectors, slice(start, stop))
        found = partners[start:stop]
        for first in range(0, stop, SQUARE_ROWS):
            last = min(first + SQUARE_ROWS, stop)
            alike = later @ _rows(vectors, slice(first, last)).T >= NEAR_COSINE
            alike &= ~is_copy[None, first:last]
            alike &= np.arange(first, last)[None, :] < np.arange(start, stop)[:, None]
            is_new = (found < 0) & alike.any(axis=1)
            found[is_new] = first + alike[is_new].argmax(axis=1)
        found[is_copy[start:stop]] = -1
    return partners


def _embedded(task: Task) -> FloatArray:
    """Return the vectors of all texts, `[N, D]`; in float16 where many wide ones would take too much memory."""
    texts = task.data.texts
    vectors: FloatArray | None = None
    for start, block in embedded_blocks(task, texts):
        if vectors is None:
            is_large = 4 * len(texts) * block.shape[1] > MAX_FLOAT32_BYTES
            vectors = np.empty((len(texts), block.shape[1]), np.float16 if is_large else np.float32)
        vectors[start : start + len(block)] = block
    assert vectors is not None  # noqa: S101 - there are texts: the report needs thirty
    return vectors


def _rows(vectors: FloatArray, rows: int | slice | NDArray[np.int64]) -> FloatArray:
    """Return some of the vectors to compute with, in float32."""
    return np.asarray(vectors[rows], np.float32)


def _neighbour_similarity(vectors: FloatArray, task: Task) -> Float64Array:
    """Return the mean cosine of each text to its nearest ones, `[N]`, itself aside."""
    random = np.random.default_rng(task.seed)
    sample = np.sort(random.permutation(len(vectors))[:NEIGHBOUR_SAMPLE])
    base = _rows(vectors, sample)
    count = min(NEIGHBOURS, len(base) - 1)
    means = np.empty(len(vectors))
    step = max(1, BLOCK_CELLS // len(base))
    for start in range(0, len(vectors), step):
        task.check()
        cosines = _rows(vectors, slice(start, start + step)) @ base.T
        places = np.searchsorted(sample, np.arange(start, start + len(cosines)))
        is_there = (places < len(sample)) & (
            sample[np.minimum(places, len(sample) - 1)] == np.arange(start, start + len(cosines))
        )
        cosines[np.flatnonzero(is_there), places[is_there]] = -np.inf
        best = np.partition(cosines, len(base) - count, axis=1)[:, len(base) - count :]
        means[start : start + step] = best.mean(axis=1)
    return means


REPORT: Final = Report(
    name="outliers",
    title="Texts that are there twice, exactly or nearly, and texts that are like no other.",
    measure=measure,
    advise=advise,
    needs=(Need.TEXTS,),
    source="near copies by cosine; outliers by robust deviations of the similarity to ten neighbours",
    min_items={Need.TEXTS: 30},
)
