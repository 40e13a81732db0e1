"""Which languages a model puts beside one another: whether a sentence finds its translation."""

from typing import Final

import numpy as np

from nestvec.corpus.reports.frame import Figure, Figures, Need, Report, Task
from nestvec.corpus.reports.probes import read_probes
from nestvec.corpus.reports.statistics.resampling import mean_figure
from nestvec.corpus.reports.statistics.retrieval import found_first
from nestvec.corpus.reports.statistics.sampling import drawn, drawn_note
from nestvec.engine.types import FloatArray

BASE: Final = "en"
GOOD: Final = 0.9
POOR: Final = 0.5
MAX_PAIRS: Final = 20_000
ALL: Final = "translations found first"


def measure(task: Task) -> Figures:
    """Look for the translation of each sentence among all, in both directions."""
    embed = task.subject.embed
    if task.data.pairs:
        firsts, seconds = zip(*drawn(task.data.pairs, MAX_PAIRS, task.seed), strict=True)
        found = _figure(ALL, embed(list(firsts)), embed(list(seconds)))
        return Figures([found], notes=drawn_note(len(task.data.pairs), MAX_PAIRS, "pairs"))
    probes: dict[str, list[str]] = read_probes("bitext")
    vectors = {language: embed(sentences) for language, sentences in probes.items()}
    others = [language for language in probes if language != BASE]
    figures = [
        _figure(f"{ALL}, {BASE} and {language}", vectors[BASE], vectors[language])
        for language in others
    ]
    count = len(probes[BASE])
    note = (
        f"Both directions of {count} plain sentences of the project's own; the more there are, the harder it is to "
        "find one first."
    )
    return Figures(figures, notes=[note])


def advise(figures: Figures) -> list[str]:
    """Name the languages that the model brings together, and those that it does not."""
    lines = []
    good = [_language(figure) for figure in figures.figures if figure.value >= GOOD]
    poor = [_language(figure) for figure in figures.figures if figure.value < POOR]
    if good:
        lines.append(f"searches across languages work here: {', '.join(good)}")
    if poor:
        lines.append(
            f"the model does not bring these together: {', '.join(poor)}; take a multilingual model, or translate first"
        )
    return lines


def _figure(name: str, first: FloatArray, second: FloatArray) -> Figure:
    hits = (found_first(first, second) + found_first(second, first)) / 2
    return mean_figure(name, np.asarray(hits), unit="share", better="higher")


def _language(figure: Figure) -> str:
    return figure.name.rpartition(", ")[2] if ", " in figure.name else "these pairs"


REPORT: Final = Report(
    name="bitext",
    title="Which languages the model puts beside one another.",
    measure=measure,
    advise=advise,
    takes=(Need.PAIRS,),
    source="bitext retrieval as in MINERS (arXiv:2406.07424)",
    min_items={Need.PAIRS: 8},
)
