"""Reads what a report is made of from files: texts, labels, a reference, pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from nestvec.corpus.reading.records import Columns
from nestvec.corpus.reading.sources import find_sources, read_sources
from nestvec.corpus.reports.frame import ReportData
from nestvec.errors import FormatError

TAB: Final = "\t"
TABBED: Final = (".tsv", ".txt")


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Files of a report, and what of them is read.

    Attributes:
        texts: Files or folders of texts.
        reference: Those of the texts to compare with.
        pairs: Those of pairs: two columns, or lines with a tab between two texts.
        text_column: The column of texts, of files that have columns.
        label_column: The column of labels; None for none.
        pair_columns: The two columns of pairs.
        max_items: How many of each are read at most.
        keeps_empty: Whether texts without a letter count; no model embeds them.
    """

    texts: Sequence[str] = ()
    reference: Sequence[str] = ()
    pairs: Sequence[str] = ()
    text_column: str = "text"
    label_column: str | None = None
    pair_columns: tuple[str, str] = ("query", "answer")
    max_items: int = 100_000
    keeps_empty: bool = False

    def read(self) -> ReportData:
        """Read all of them.

        Raises:
            FormatError: A file cannot be read, or has no such column.
        """
        texts, labels = self._texts()
        names = [Path(name).name for name in (*self.texts, *self.reference, *self.pairs)]
        return ReportData(
            texts=texts,
            reference=self._column(self.reference, self.text_column),
            pairs=self._pairs(),
            labels=labels,
            source=", ".join(names),
        )

    def _texts(self) -> tuple[list[str], list[str]]:
        """Return texts and their labels; no labels where no column of them is named."""
        if not self.texts:
            return [], []
        columns = Columns(text=self.text_column, id=self.label_column)
        records = islice(read_sources(find_sources(self.texts), columns), self.max_items)
        rows = [(record.text, record.id) for record in records if self._counts(record.text)]
        if not rows:
            raise FormatError("no text in these files")
        labels = [label for _, label in rows] if self.label_column is not None else []
        return [text for text, _ in rows], labels

    def _column(self, files: Sequence[str], column: str) -> list[str]:
        if not files:
            return []
        records = islice(read_sources(find_sources(files), Columns(text=column)), self.max_items)
        return [record.text for record in records if self._counts(record.text)]

    def _counts(self, text: str) -> bool:
        return self.keeps_empty or bool(text.strip())

    def _pairs(self) -> list[tuple[str, str]]:
        of_files = (
            _tabbed(path) if path.suffix in TABBED else self._pair_columns(name)
            for name, path in zip(self.pairs, map(Path, self.pairs), strict=True)
        )
        return list(islice(chain.from_iterable(of_files), self.max_items))

    def _pair_columns(self, name: str) -> Iterator[tuple[str, str]]:
        first, second = self.pair_columns
        columns = Columns(text=first, keep=(second,))
        for record in read_sources(find_sources([name]), columns):
            yield record.text, _text_of(record.columns, second, record.where)


def _tabbed(path: Path) -> Iterator[tuple[str, str]]:
    """Read lines of two texts with a tab between them.

    Raises:
        FormatError: A line is not of this form; the error names it.
    """
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        first, tab, second = line.partition(TAB)
        if not tab or not first.strip() or not second.strip():
            raise FormatError(f"{path}:{number}: expected text, tab, text")
        yield first, second


def _lines(path: Path) -> Iterator[str]:
    """Read a file's lines, without their ends.

    Raises:
        FormatError: It cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield line.rstrip("\n")
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read") from error


def _text_of(columns: Mapping[str, Any], name: str, where: str) -> str:
    value = columns.get(name)
    if not isinstance(value, str):
        raise FormatError(f"{where}: the column '{name}' is missing or no text")
    return value
