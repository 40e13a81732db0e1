"""What typing errors, case, invisible characters and look-alike letters do to vectors and to what a search finds."""

from typing import Final

from nestvec.corpus.reports.frame import Figures, Need, Report, ReportTable, Task
from nestvec.corpus.reports.statistics.perturbation import (
    CHANGES,
    changed,
    has_invisible,
    has_look_alikes,
)
from nestvec.corpus.reports.statistics.resampling import count_figure, mean_figure
from nestvec.corpus.reports.statistics.retrieval import found_first
from nestvec.corpus.reports.statistics.sampling import drawn, drawn_note
from nestvec.corpus.reports.statistics.scores import pair_cosines

SHARES: Final = (0.05, 0.1, 0.3)
ADVISED_SHARE: Final = 0.1
FOUND: Final = "found first"
LOOK_ALIKES: Final = "texts with look-alike letters of another script"
INVISIBLE: Final = "texts with invisible characters"
MAX_LOSS: Final = 0.1
MAX_TEXTS: Final = 5000


def measure(task: Task) -> Figures:
    """Change queries in a share of their places, and see how far vectors move and whether answers are still found.

    Without pairs each text is to be found by its changed self, which is the easier search.
    """
    data, embed = task.data, task.subject.embed
    if data.pairs:
        pairs = drawn(data.pairs, MAX_TEXTS, task.seed)
        notes = drawn_note(len(data.pairs), MAX_TEXTS, "pairs")
        queries = [query for query, _ in pairs]
        clean = embed(queries, "query")
        documents = embed([answer for _, answer in pairs], "passage")
        role: str | None = "query"
    else:
        queries, role = list(drawn(data.texts, MAX_TEXTS, task.seed)), None
        notes = drawn_note(len(data.texts), MAX_TEXTS, "texts")
        clean = documents = embed(queries)
    everything = [*data.texts, *(text for pair in data.pairs for text in pair)]
    figures = [
        count_figure(LOOK_ALIKES, sum(map(has_look_alikes, everything)), len(everything)),
        count_figure(INVISIBLE, sum(map(has_invisible, everything)), len(everything)),
        mean_figure(
            f"{FOUND}, unchanged", found_first(clean, documents), unit="share", better="higher"
        ),
    ]
    rows: list[list[str | int | float]] = []
    for name, change in CHANGES.items():
        for share in SHARES:
            task.check()
            vectors = embed(changed(queries, change, share, task.seed), role)
            label = f"{name} {share:.0%}"
            cosine = mean_figure(
                f"{label}: cosine to the unchanged",
                pair_cosines(clean, vectors),
                unit="cosine",
                better="higher",
            )
            found = mean_figure(
                f"{label}: {FOUND}", found_first(vectors, documents), unit="share", better="higher"
            )
            figures += [cosine, found]
            rows.append([name, f"{share:.0%}", cosine.value, found.value])
    heads = ("change", "of places", "cosine", FOUND)
    return Figures(figures, [ReportTable("by change and share", heads, rows)], notes)


def advise(figures: Figures) -> list[str]:
    """Name the changes that lose more than a tenth of what is found, and texts that have been tampered with."""
    lines = []
    base = figures.value(f"{FOUND}, unchanged")
    for name in CHANGES:
        found = figures.value(f"{name} {ADVISED_SHARE:.0%}: {FOUND}")
        if base - found > MAX_LOSS:
            lines.append(
                f"{name} in {ADVISED_SHARE:.0%} of places: found first falls from {base:.1%} to {found:.1%}; "
                + ADVICE[name]
            )
    planted = figures.value(LOOK_ALIKES) + figures.value(INVISIBLE)
    if planted:
        lines.append(
            f"{figures.value(LOOK_ALIKES):.0f} of these texts hold look-alike letters and "
            f"{figures.value(INVISIBLE):.0f} invisible characters: a search passes them "
            "by; normalise them before they are embedded"
        )
    return lines


ADVICE: Final = {
    "letters swapped": "correct spelling of queries first, or search by characters beside vectors",
    "case": "fold case of queries, if texts are in lower case",
    "invisible characters": "strip control and format characters before embedding",
    "look-alike letters": "fold look-alikes (Unicode's confusables) before embedding",
}


REPORT: Final = Report(
    name="robustness",
    title="What spelling, case, invisible characters and look-alike letters do to vectors and searches.",
    measure=measure,
    advise=advise,
    needs_one_of=(Need.PAIRS, Need.TEXTS),
    source="inner letters swapped as in arXiv:1711.02173; look-alikes of Unicode's confusables (UTS 39)",
    min_items={Need.TEXTS: 20, Need.PAIRS: 20},
)
