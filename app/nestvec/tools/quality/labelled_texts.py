"""Files of labels, of texts that have them, and of pairs of texts: tab-separated, UTF-8, one row a line, no header."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nestvec.engine.front.labelling import PLACE, fill_template, is_template
from nestvec.errors import FormatError

PAIR: Final = 2


@dataclass(frozen=True, slots=True)
class Concept:
    """A label, and what says what it means.

    Attributes:
        label: Its name.
        texts: Examples, as they are: texts, or files of pictures.
        is_named: Whether its name, put into the template, is a text of it too.
    """

    label: str
    texts: tuple[str | Path, ...]
    is_named: bool

    def read_as(self, template: str) -> list[str | Path]:
        """Return the texts, or files of pictures, that its anchor is the mean of, at least one."""
        named = fill_template(template, [self.label]) if self.is_named else []
        return [*named, *self.texts]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text, or a picture's file, and the indices of its labels, at least one."""

    text: str | Path
    labels: tuple[int, ...]


def check_template(template: str) -> str:
    """Return a template for labels.

    Raises:
        FormatError: It does not have one place for a label.
    """
    if not is_template(template):
        raise FormatError(f"a template has '{PLACE}' once, where the label goes")
    return template


def read_concepts(path: Path) -> list[Concept]:
    """Read lines of a label alone, or of a label, a tab and an example text; a label may have several lines.

    Raises:
        FormatError: The file cannot be read, has other lines, or fewer than two labels.
    """
    texts: dict[str, list[str]] = {}
    named = set()
    for number, cells in _rows(path):
        if len(cells) > PAIR or not cells[0].strip():
            raise FormatError(f"{path}:{number}: expected a label, or a label, a tab and a text")
        label = cells[0].strip()
        of_label = texts.setdefault(label, [])
        if len(cells) == 1 or not cells[1].strip():
            named.add(label)
        elif cells[1] not in of_label:
            of_label.append(cells[1])
    if len(texts) < PAIR:
        raise FormatError(f"{path}: expected two labels at least, got {len(texts)}")
    return [Concept(label, tuple(each), label in named) for label, each in texts.items()]


def read_labelled(path: Path, labels: Sequence[str]) -> list[LabelledText]:
    """Read lines of a label, a tab and a text that has it; a text of several labels has a line for each.

    Raises:
        FormatError: The file cannot be read, or has other lines or labels.
    """
    index_of = {label: index for index, label in enumerate(labels)}
    by_text: dict[str, set[int]] = {}
    for number, cells in _rows(path):
        if len(cells) != PAIR or not cells[1].strip():
            raise FormatError(f"{path}:{number}: expected a label, a tab and a text")
        index = index_of.get(cells[0].strip())
        if index is None:
            known = ", ".join(labels[:8]) + (", …" if len(labels) > 8 else "")  # noqa: PLR2004 - as many as one reads
            raise FormatError(f"{path}:{number}: there is no such label; there are: {known}")
        by_text.setdefault(cells[1], set()).add(index)
    return [LabelledText(text, tuple(sorted(found))) for text, found in by_text.items()]


def read_text_pairs(path: Path) -> list[tuple[str, str]]:
    """Read lines of a text, a tab and the text that it is set against, at least one.

    Raises:
        FormatError: The file cannot be read, has other lines, or none.
    """
    pairs = []
    for number, cells in _rows(path):
        if len(cells) != PAIR or not all(cell.strip() for cell in cells):
            raise FormatError(f"{path}:{number}: expected a text, a tab and a text")
        pairs.append((cells[0], cells[1]))
    if not pairs:
        raise FormatError(f"{path}: holds no pairs")
    return pairs


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line that is not blank, and its cells.

    Raises:
        FormatError: The file cannot be read.
    """
    try:
        content = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise FormatError(f"{path}: cannot be read ({reason})") from error
    # Not by `splitlines`, which also cuts at characters that texts may have within a line.
    for number, line in enumerate(content.replace("\r\n", "\n").split("\n"), start=1):
        if line.strip():
            yield number, line.split("\t")
