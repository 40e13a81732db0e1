"""Runs reports: checks what they need, measures, and puts what several models give side by side."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nestvec import __version__
from nestvec.corpus.reports.frame import Figure, Figures, Need, Report, ReportData, Task
from nestvec.corpus.reports.statistics.resampling import holm, paired_difference
from nestvec.errors import InputError

# What a request calls each need, in words.
NEED_WORDS: Final[Mapping[Need, str]] = {
    Need.TEXTS: "texts",
    Need.REFERENCE: "a second set of texts",
    Need.PAIRS: "pairs of texts",
    Need.LABELS: "a label for each text",
}


@dataclass(frozen=True, slots=True)
class ReportResult:
    """A report that was made.

    Attributes:
        report: Which.
        model: The model's name.
        space: Fingerprint of its space.
        other: The model that it was compared with; "" for none.
        seed: Of every draw.
        source: Where the texts come from.
        measured: The figures.
        advice: What to do, in words.
        took_s: Seconds that it took.
        made_s: When it was made, in seconds since the epoch.
    """

    report: Report
    model: str
    space: str
    other: str
    seed: int
    source: str
    measured: Figures
    advice: Sequence[str]
    took_s: float
    made_s: float = field(default_factory=time.time)

    def as_json(self) -> dict[str, Any]:
        """Return the report as it is kept, served and rendered."""
        return {
            "report": self.report.name,
            "title": self.report.title,
            "model": self.model,
            "space": self.space,
            "other_model": self.other or None,
            "seed": self.seed,
            "texts_of": self.source or None,
            "nestvec": __version__,
            "made_s": int(self.made_s),
            "took_s": round(self.took_s, 2),
            "method": self.report.source,
            "figures": [figure.as_json() for figure in self.measured.figures],
            "tables": [table.as_json() for table in self.measured.tables],
            "notes": list(self.measured.notes),
            "advice": list(self.advice),
        }


def check_data(report: Report, data: ReportData) -> None:
    """Refuse what a report cannot be made of.

    Raises:
        InputError: Something that it needs is missing or too little, or is of another length; names the field.
    """
    for need in report.fields:
        given, least = len(data.given(need)), report.min_items.get(need, 1)
        if not given and need in report.needs:
            raise InputError(
                f"the report '{report.name}' needs {NEED_WORDS[need]}: '{need.value}' is missing",
                param=need.value,
                code="missing_required_parameter",
            )
        if 0 < given < least:
            raise InputError(
                f"{given} {need.value} are too few for '{report.name}': at least {least} say anything",
                param=need.value,
            )
    if report.needs_one_of and not any(map(data.given, report.needs_one_of)):
        words = " or ".join(f"'{need.value}'" for need in report.needs_one_of)
        raise InputError(
            f"the report '{report.name}' needs {words}",
            param=report.needs_one_of[0].value,
            code="missing_required_parameter",
        )
    for need in Need:
        given = len(data.given(need))
        if given and need not in report.fields:
            wants = ", ".join(report.fields) or "nothing"
            raise InputError(
                f"the report '{report.name}' takes no '{need.value}', but {wants}", param=need.value
            )
        if given > report.max_items:
            raise InputError(
                f"{given} {need.value} are too many for '{report.name}': at most {report.max_items}",
                param=need.value,
                code="request_too_large",
            )
    if data.labels and len(data.labels) != len(data.texts):
        raise InputError(
            f"'labels' has {len(data.labels)} entries for {len(data.texts)} texts", param="labels"
        )


def make_report(report: Report, task: Task) -> ReportResult:
    """Make a report; blocks until it is done.

    Raises:
        InputError: Something that it needs is missing, or a text is refused.
        NestvecError: Vectors cannot be had.
    """
    check_data(report, task.data)
    if (task.other is not None) != (report.models > 1):
        need = "two models" if report.models > 1 else "one model"
        raise InputError(f"the report '{report.name}' is about {need}", param="model")
    started = time.monotonic()
    measured = report.measure(task)
    return ReportResult(
        report=report,
        model=task.subject.name,
        space=task.subject.space,
        other="" if task.other is None else task.other.name,
        seed=task.seed,
        source=task.data.source,
        measured=measured,
        advice=report.advise(measured),
        took_s=time.monotonic() - started,
    )


def side_by_side(results: Sequence[ReportResult]) -> list[dict[str, Any]]:
    """Return a row for each figure with a column for each model, and how the later ones differ from the first.

    A difference is paired: over the same texts, with a 95% interval, and a p that is adjusted (Holm) for all rows and
    columns together. Figures without values of single texts have no difference.

    Args:
        results: The same report of several models, over the same data.
    """
    first = results[0]
    rows: list[dict[str, Any]] = []
    for figure in first.measured.figures:
        found = [result.measured.get(figure.name) for result in results]
        rows.append(
            {
                "name": figure.name,
                "unit": figure.unit,
                "better": figure.better,
                "columns": [None if each is None else each.as_json() for each in found],
                "differences": [_difference(figure, each) for each in found[1:]],
            }
        )
    tested = [entry for row in rows for entry in row["differences"] if entry is not None]
    for entry, adjusted in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_adjusted"] = round(adjusted, 5)
    return rows


def _difference(first: Figure, second: Figure | None) -> dict[str, float] | None:
    if second is None or first.values is None or second.values is None:
        return None
    if len(first.values) != len(second.values):
        return None
    value, low, high, p = paired_difference(first.values, second.values)
    rounded = {"value": value, "low": low, "high": high, "p": p}
    return {name: round(number, 5) for name, number in rounded.items()}
