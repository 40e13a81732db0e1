"""How well vectors of sentences show where one document ends and the next begins, when they are joined."""

from typing import Final

import numpy as np

from nestvec.corpus.reports.frame import Figures, Need, Report, Task
from nestvec.corpus.reports.statistics.blocks import blocks
from nestvec.corpus.reports.statistics.resampling import mean_figure
from nestvec.corpus.reports.statistics.segmentation import (
    find_boundaries,
    valley_depths,
    window_diff,
)
from nestvec.engine.splitting.sentences import sentences as sentence_spans

JOINED: Final = 8
WINDOWS: Final = (1, 4)
MAX_TEXTS: Final = 1600
MIN_SENTENCES: Final = 2
WINDOW_DIFF: Final = "WindowDiff"
GOOD_WINDOW_DIFF: Final = 0.25


def measure(task: Task) -> Figures:
    """Join texts by eight, find the valleys between their sentences, and compare them with the true joints."""
    documents = []
    for text in task.data.texts[:MAX_TEXTS]:
        task.check()
        parts = (text[start:stop].strip() for start, stop in sentence_spans(text))
        sentences = [part for part in parts if part]
        if len(sentences) >= MIN_SENTENCES:
            documents.append(sentences)
    vectors = task.subject.embed([sentence for document in documents for sentence in document])
    lengths = np.array([len(document) for document in documents])
    stops = np.cumsum(lengths)
    figures = []
    joined = len(documents) // JOINED
    for window in WINDOWS:
        rows: list[tuple[float, float, float]] = []
        for group in blocks(range(len(documents)), JOINED):
            if len(group) < JOINED:
                break
            task.check()
            first = int(stops[group[0]] - lengths[group[0]])
            part = vectors[first : int(stops[group[-1]])]
            true = np.zeros(len(part) - 1, bool)
            true[stops[list(group)[:-1]] - first - 1] = True
            found = find_boundaries(valley_depths(part, window))
            hits = int((true & found).sum())
            rows.append(
                (hits / max(1, int(found.sum())), hits / int(true.sum()), window_diff(true, found))
            )
        measured = np.array(rows)
        label = f"{window} sentence{'s' if window > 1 else ''} a side"
        figures += [
            mean_figure(f"precision, {label}", measured[:, 0], unit="share", better="higher"),
            mean_figure(f"recall, {label}", measured[:, 1], unit="share", better="higher"),
            mean_figure(f"{WINDOW_DIFF}, {label}", measured[:, 2], unit="share", better="lower"),
        ]
    note = f"{joined} rows of {JOINED} joined texts; n counts rows. Boundaries are valleys half a deviation deep."
    return Figures(figures, notes=[note])


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


REPORT: Final = Report(
    name="segments",
    title="How well vectors of sentences show where one topic ends and the next begins.",
    measure=measure,
    advise=advise,
    needs=(Need.TEXTS,),
    source="depth scores (Hearst, 1997) over embeddings of sentences; WindowDiff (Pevzner and Hearst, 2002)",
    min_items={Need.TEXTS: 2 * JOINED},
)
