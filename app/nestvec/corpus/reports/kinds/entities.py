"""Whether other spellings of a name find the name: case, plural, a slip, an article."""

from typing import Final

import numpy as np

from nestvec.corpus.reports.frame import Figures, Report, ReportTable, Task
from nestvec.corpus.reports.probes import read_probes
from nestvec.corpus.reports.statistics.neighbours import nearest
from nestvec.corpus.reports.statistics.resampling import mean_figure

FOUND: Final = "spellings that find their own name first"
MARGIN: Final = "cosine to the own name above that to the next"
GOOD: Final = 0.95


def measure(task: Task) -> Figures:
    """Look for each name among all by each of its other spellings."""
    groups: list[list[str]] = read_probes("entities")
    names = task.subject.embed([name for name, *_ in groups])
    variants = [variant for _, *others in groups for variant in others]
    own = np.array([row for row, (_, *others) in enumerate(groups) for _ in others])
    vectors = task.subject.embed(variants)
    cosines = (vectors @ names.T).astype(np.float64)
    hits = nearest(vectors, names, 1)[:, 0] == own
    rows = np.arange(len(own))
    to_own = cosines[rows, own].copy()
    cosines[rows, own] = -np.inf
    missed: list[list[str | int | float]] = [
        [variants[row], groups[own[row]][0], groups[int(cosines[row].argmax())][0]]
        for row in np.flatnonzero(~hits).tolist()
    ]
    tables = [ReportTable("missed", ("spelling", "name", "found"), missed)] if missed else []
    return Figures(
        [
            mean_figure(FOUND, hits, unit="share", better="higher"),
            mean_figure(MARGIN, to_own - cosines.max(axis=1), unit="cosine", better="higher"),
        ],
        tables,
    )


def advise(figures: Figures) -> list[str]:
    """Warn where names are missed."""
    found = figures.value(FOUND, 1.0)
    if found >= GOOD:
        return []
    return [
        f"{1 - found:.0%} of other spellings miss their name: match names by letters too, or embed them in a sentence"
    ]


REPORT: Final = Report(
    name="entities",
    title="Whether other spellings of a name find the name.",
    measure=measure,
    advise=advise,
    source="phrases and their variants as in PEARL (arXiv:2401.10407)",
)
