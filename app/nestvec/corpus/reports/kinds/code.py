"""Whether a description finds the function that does what it says."""

from typing import Final

from nestvec.corpus.reports.frame import Figures, Need, Report, Task
from nestvec.corpus.reports.probes import read_probes
from nestvec.corpus.reports.statistics.resampling import mean_figure
from nestvec.corpus.reports.statistics.retrieval import found_first
from nestvec.corpus.reports.statistics.sampling import drawn, drawn_note

FOUND: Final = "descriptions that find their function first"
MAX_PAIRS: Final = 20_000
GOOD: Final = 0.8


def measure(task: Task) -> Figures:
    """Look for the function of each description among all; functions of the probes are all named f."""
    pairs = drawn(task.data.pairs, MAX_PAIRS, task.seed) or [
        (words, code) for words, code in read_probes("code")
    ]
    descriptions = task.subject.embed([words for words, _ in pairs], "query")
    functions = task.subject.embed([code for _, code in pairs], "passage")
    notes = drawn_note(len(task.data.pairs), MAX_PAIRS, "pairs")
    tokenizer = task.subject.tokenizer
    if tokenizer is not None:
        small, large = (tokenizer.library.encode(text).ids for text in ("a = b", "A = B"))
        if small == large:
            notes.append("The tokenizer folds case: Name and name are one token to this model.")
    hits = found_first(descriptions, functions)
    return Figures([mean_figure(FOUND, hits, unit="share", better="higher")], notes=notes)


def advise(figures: Figures) -> list[str]:
    """Warn where code is not found."""
    lines = []
    found = figures.value(FOUND, 1.0)
    if found < GOOD:
        lines.append(
            f"only {found:.0%} of descriptions find their function: take a model that was trained on code"
        )
    return lines + [note for note in figures.notes if "folds case" in note]


REPORT: Final = Report(
    name="code",
    title="Whether a description finds the function that does it.",
    measure=measure,
    advise=advise,
    takes=(Need.PAIRS,),
    source="search of functions by docstrings (arXiv:1909.09436)",
    min_items={Need.PAIRS: 8},
)
