"""The report: a section for each contest, printed as it grows and written after each row.

A later run replaces the sections that it measures and leaves the others, so that parts may be measured anew: ratios
are between sides of one section only.
"""

import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final

from nestvec.system.cpus import cpu_model, usable_cpus

from benchmarks.long.loads import Load

HEADING: Final = "## "
PAIR_COLUMNS: Final = (
    "load",
    "tokens",
    "side",
    "tok/s",
    "other side",
    "tok/s",
    "ratio",
    "peak RSS of both, MB",
    "least cosine",
    "largest difference",
    "rounds",
)
START_COLUMNS: Final = (
    "side",
    "precision",
    "first start, s",
    "peak RSS, MB",
    "second start, s",
    "peak RSS, MB",
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the vectors of two sides agree.

    Attributes:
        min_cosine: The least cosine of a text's two vectors.
        max_difference: The largest difference of two of their values.
    """

    min_cosine: float
    max_difference: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one side on a load.

    Attributes:
        name: The side's name.
        seconds: The least seconds of its rounds.
        peak_rss_mb: Its peak memory in MB over all of them.
    """

    name: str
    seconds: float
    peak_rss_mb: float


def pair_row(load: Load, ours: Measured, other: Measured, agreement: Agreement, rounds: int) -> str:
    """Return a row of the table: one side beside another on a load; the ratio is above 1 where the first is faster."""
    cells = (
        load.name,
        f"{load.tokens:,}",
        ours.name,
        f"{load.tokens / ours.seconds:,.0f}",
        other.name,
        f"{load.tokens / other.seconds:,.0f}",
        f"**{other.seconds / ours.seconds:.2f}**",
        f"{ours.peak_rss_mb:,.0f} / {other.peak_rss_mb:,.0f}",
        f"{agreement.min_cosine:.6f}",
        f"{agreement.max_difference:.0e}",
        str(rounds),
    )
    return _row(cells)


def start_row(name: str, precision: str, starts: list[tuple[float, float]]) -> str:
    """Return a row of the table of starts.

    Args:
        name: Name of the side.
        precision: Its precision.
        starts: Seconds and peak memory in MB of the first start and of the second.
    """
    figures = [cell for seconds, mb in starts for cell in (f"{seconds:.1f}", f"{mb:,.0f}")]
    return _row((name, precision, *figures))


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


@dataclass
class Section:
    """A part of the report.

    Attributes:
        title: Its title.
        columns: Columns of its table.
        head: What it says before the table.
        rows: Rows of the table.
        notes: What it says after the table.
    """

    title: str
    columns: tuple[str, ...]
    head: str = ""
    rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return it as lines of Markdown."""
        table = [_row(self.columns), "|" + "---|" * len(self.columns), *self.rows]
        notes = ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        head = [self.head, ""] if self.head else []
        return [HEADING + self.title, "", *head, *table, *notes, ""]


class Report:
    """The report of a run in its file.

    Args:
        path: The file; sections of it that this run does not measure stay.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sections = sections_of(path.read_text("utf-8")) if path.is_file() else {}

    def begin(self, title: str, columns: tuple[str, ...], head: str) -> Section:
        """Begin a section; with its first row or note it takes the place of one of the same title."""
        today = date.today().isoformat()  # noqa: DTZ011 - a person's date
        load = f"{os.getloadavg()[0]:.1f}"
        section = Section(title, columns, f"{today}, load average {load} at its start. {head}")
        print("\n".join(section.lines()[:-1]), flush=True)
        return section

    def add_row(self, section: Section, row: str) -> None:
        """Add a row to a section's table, print and write it."""
        section.rows.append(row)
        print(row, flush=True)
        self._write(section)

    def add_note(self, section: Section, note: str) -> None:
        """Add a note to a section, print and write it."""
        section.notes.append(note)
        print(f"- {note}", flush=True)
        self._write(section)

    def _write(self, section: Section) -> None:
        self._sections[section.title] = section.lines()
        head = [
            "# Long texts",
            "",
            f"{cpu_model()}; {usable_cpus()} cores, shared by server and client. Models with random weights at real "
            "sizes. Best of interleaved rounds, texts unique; ours and llama.cpp's over HTTP, the others in process.",
            "",
        ]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = [*head, *(line for lines in self._sections.values() for line in lines)]
        self._path.write_text("\n".join(lines), "utf-8")


def sections_of(text: str) -> dict[str, list[str]]:
    """Return the lines of each section of a report, heading included, by title."""
    sections: dict[str, list[str]] = {}
    title = ""
    for line in text.split("\n"):
        if line.startswith(HEADING):
            title = line.removeprefix(HEADING)
            sections[title] = []
        if title:
            sections[title].append(line)
    return {
        title: [*"\n".join(lines).rstrip().split("\n"), ""] for title, lines in sections.items()
    }
