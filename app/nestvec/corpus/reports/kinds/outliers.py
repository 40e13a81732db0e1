"""Texts that are there twice, exactly or nearly, and texts that are like none of the others."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.frame import MAX_ROWS, Figures, Need, Report, ReportTable, Task
from nestvec.corpus.reports.statistics.resampling import count_figure, mean_figure
from nestvec.engine.types import Float64Array, FloatArray

NEAR_COSINE: Final = 0.97
NEIGHBOURS: Final = 10
# Neighbours are looked for among so many texts; duplicates among all.
NEIGHBOUR_SAMPLE: Final = 10_000
# Of normally distributed similarities one in 4,300 lies so many deviations below the median.
OUTLIER_DEVIATIONS: Final = 3.5
MAD_TO_DEVIATION: Final = 1.4826
BLOCK_CELLS: Final = 4_000_000
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
    vectors = task.subject.embed(texts)
    partners = near_copies(vectors, is_copy, task)
    near = np.flatnonzero(partners >= 0)
    similarity = _neighbour_similarity(vectors, task)
    deviation = float(np.median(np.abs(similarity - np.median(similarity)))) * MAD_TO_DEVIATION
    scores = (similarity - np.median(similarity)) / max(deviation, 1e-9)
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
        [int(row), int(partners[row]), float(vectors[row] @ vectors[partners[row]])]
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
        "similarity, where one in 4,300 normal ones lies."
    ]
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
    partners = np.full(len(vectors), -1)
    rows = np.flatnonzero(~is_copy)
    kept = vectors[rows] if len(rows) < len(vectors) else vectors
    step = max(1, BLOCK_CELLS // max(1, len(kept)))
    for start in range(0, len(kept), step):
        task.check()
        stop = min(start + step, len(kept))
        alike = kept[start:stop] @ kept[:stop].T >= NEAR_COSINE
        alike &= np.arange(stop)[None, :] < np.arange(start, stop)[:, None]
        has_one = alike.any(axis=1)
        first = alike.argmax(axis=1)
        partners[rows[start:stop][has_one]] = rows[first[has_one]]
    return partners


def _neighbour_similarity(vectors: FloatArray, task: Task) -> Float64Array:
    """Return the mean cosine of each text to its nearest ones, `[N]`, itself aside."""
    random = np.random.default_rng(task.seed)
    sample = np.sort(random.permutation(len(vectors))[:NEIGHBOUR_SAMPLE])
    base = vectors[sample]
    count = min(NEIGHBOURS, len(base) - 1)
    means = np.empty(len(vectors))
    step = max(1, BLOCK_CELLS // len(base))
    for start in range(0, len(vectors), step):
        task.check()
        cosines = vectors[start : start + step] @ base.T
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
