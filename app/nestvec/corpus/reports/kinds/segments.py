"""How well vectors of sentences show where one document ends and the next begins, when they are joined."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from nestvec.corpus.reports.frame import Figures, Need, Report, Task
from nestvec.corpus.reports.statistics.blocks import blocks
from nestvec.corpus.reports.statistics.resampling import mean_figure
from nestvec.corpus.reports.statistics.sampling import drawn, drawn_note
from nestvec.corpus.reports.statistics.segmentation import window_diff
from nestvec.engine.splitting.semantic import WINDOW_SENTENCES, boundaries
from nestvec.engine.splitting.sentences import sentences as sentence_spans
from nestvec.engine.types import FloatArray
from nestvec.errors import InputError

JOINED: Final = 8
WINDOWS: Final = (1, WINDOW_SENTENCES)
MAX_TEXTS: Final = 1600
MIN_SENTENCES: Final = 2
WINDOW_DIFF: Final = "WindowDiff"
GOOD_WINDOW_DIFF: Final = 0.25


def measure(task: Task) -> Figures:
    """Join texts by eight, drawn at random, cut them as the splitter `semantic` does, and compare with the true joints.

    They are not joined in their order: files are often sorted by subject, and where neighbours are alike there is less
    of a joint to see than between documents of a store.

    Raises:
        InputError: Too few of the texts have several sentences.
    """
    documents = _sentences_of(task)
    if len(documents) < JOINED:
        raise InputError(
            f"{len(documents)} of these texts have {MIN_SENTENCES} sentences or more; {JOINED} of them are needed",
            param="texts",
        )
    order = np.random.default_rng(task.seed).permutation(len(documents)).tolist()
    documents = [documents[place] for place in order]
    vectors = task.subject.embed([sentence for document in documents for sentence in document])
    lengths = [len(document) for document in documents]
    stops = np.cumsum(lengths)
    rows: list[list[tuple[float, float, float]]] = [[] for _ in WINDOWS]
    joined = len(documents) // JOINED
    for group in blocks(range(joined * JOINED), JOINED):
        task.check()
        ends = stops[group[0] : group[-1] + 1] - stops[group[0]] + lengths[group[0]]
        part = vectors[stops[group[0]] - lengths[group[0]] : stops[group[-1]]]
        for row, window in zip(rows, WINDOWS, strict=True):
            row.append(_scores(part, ends[:-1].tolist(), window))
    figures = []
    for row, window in zip(rows, WINDOWS, strict=True):
        measured = np.array(row)
        label = f"{window} sentence{'s' if window > 1 else ''} a side"
        figures += [
            mean_figure(f"precision, {label}", measured[:, 0], unit="share", better="higher"),
            mean_figure(f"recall, {label}", measured[:, 1], unit="share", better="higher"),
            mean_figure(f"{WINDOW_DIFF}, {label}", measured[:, 2], unit="share", better="lower"),
        ]
    note = (
        f"{joined} rows of {JOINED} joined texts, drawn at random; n counts rows. "
        "Boundaries are valleys half a deviation deep, as the splitter 'semantic' cuts without a bound on tokens."
    )
    return Figures(figures, notes=[note, *drawn_note(len(task.data.texts), MAX_TEXTS, "texts")])


def advise(figures: Figures) -> list[str]:
    """Say whether valleys may cut documents."""
    best = figures.value(f"{WINDOW_DIFF}, {WINDOWS[-1]} sentences a side", 1.0)
    if best <= GOOD_WINDOW_DIFF:
        return [
            f"valleys over {WINDOWS[-1]} sentences cut texts like these well (WindowDiff {best:.2f})"
        ]
    return [
        f"valleys miss many joints of texts like these (WindowDiff {best:.2f}): cut them by headings or by size"
    ]


def _sentences_of(task: Task) -> list[list[str]]:
    """Return the sentences of each text that has several."""
    documents = []
    for text in drawn(task.data.texts, MAX_TEXTS, task.seed):
        task.check()
        parts = (text[start:stop].strip() for start, stop in sentence_spans(text))
        sentences = [part for part in parts if part]
        if len(sentences) >= MIN_SENTENCES:
            documents.append(sentences)
    return documents


def _scores(vectors: FloatArray, firsts: Sequence[int], window: int) -> tuple[float, float, float]:
    """Return precision, recall and WindowDiff of the boundaries that are found in a row of sentences.

    Args:
        vectors: Vectors of its sentences, `[N, D]`.
        firsts: The sentences that the second and later documents begin with.
        window: How many sentences on each side of a gap are compared.
    """
    true, found = (np.zeros(len(vectors) - 1, bool) for _ in range(2))
    true[np.array(firsts) - 1] = True
    found[np.array(boundaries(vectors, [1] * len(vectors), window=window), np.int64) - 1] = True
    hits = int((true & found).sum())
    return hits / max(1, int(found.sum())), hits / int(true.sum()), window_diff(true, found)


REPORT: Final = Report(
    name="segments",
    title="How well vectors of sentences show where one topic ends and the next begins.",
    measure=measure,
    advise=advise,
    needs=(Need.TEXTS,),
    source="depth scores (Hearst, 1997) over embeddings of sentences; WindowDiff (Pevzner and Hearst, 2002)",
    min_items={Need.TEXTS: 2 * JOINED},
)
