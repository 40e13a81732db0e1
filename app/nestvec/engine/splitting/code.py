"""Blocks of a source file: top-level definitions, and what is inside them where one is too long. Pure.

No language's grammar is asked: a block begins where a line stands behind a blank one, or stands out further than the
one before, unless it closes or goes on with what is above it (`}`, `else`, `end`). So the comments and decorators of a
definition stay with it. That holds for languages that are indented, by rule (Python) or by habit (C, Rust, SQL).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nestvec.engine.splitting.spans import CHECKED_SPANS, Check, Span, go_on

TAB_COLUMNS: Final = 8
# A line that belongs to what is above it, wherever it stands.
GOES_ON: Final = re.compile(
    r"[)\]}>]|(?:else|elif|elsif|except|finally|catch|rescue|ensure|end|fi|done|esac|then|while\s*\(.*\)\s*;)\b"
)


@dataclass(frozen=True, slots=True)
class CodeLine:
    """A line that is not blank, with the blank ones behind it.

    Attributes:
        start: Where it begins, in characters.
        columns: How far it is indented.
        begins: Whether a block may begin with it.
    """

    start: int
    columns: int
    begins: bool


def blocks(text: str, check: Check = go_on) -> list[list[CodeLine]]:
    """Cut a source file into its top-level blocks, each as its lines; the first line of the first is at 0.

    Args:
        text: The file.
        check: Called now and then; what it raises ends the work.
    """
    lines = _lines(text, check)
    return _cut(lines, 0, len(lines), 0) if lines else []


def parts_of_block(
    block: list[CodeLine], stop: int, fits: Callable[[int, int], bool], check: Check = go_on
) -> list[Span]:
    """Cut a block into parts that fit: at its inner blocks, those that stand out furthest first; at last at its lines.

    Args:
        block: Its lines.
        stop: Where it ends, in characters.
        fits: Whether text[start:stop] is short enough.
        check: Called before each part; what it raises ends the work.

    Returns:
        The parts as (start, stop); together they are the block. A line that does not fit is a part all the same.
    """
    done: list[Span] = []
    waiting = [(block, stop)]
    while waiting:
        check()
        lines, end = waiting.pop()
        if len(lines) == 1 or fits(lines[0].start, end):
            done.append((lines[0].start, end))
            continue
        inner = [line.columns for line in lines[1:] if line.begins]
        pieces = _cut(lines, 0, len(lines), min(inner)) if inner else [[line] for line in lines]
        stops = [*(piece[0].start for piece in pieces[1:]), end]
        waiting += reversed(list(zip(pieces, stops, strict=True)))
    return done


def _cut(lines: list[CodeLine], first: int, last: int, columns: int) -> list[list[CodeLine]]:
    """Cut lines before each that begins a block and is indented by no more than so many columns."""
    edges = [first]
    edges += [n for n in range(first + 1, last) if lines[n].begins and lines[n].columns <= columns]
    return [lines[a:b] for a, b in zip(edges, [*edges[1:], last], strict=True)]


def _lines(text: str, check: Check) -> list[CodeLine]:
    """The lines of a file that are not blank; what is blank before the first belongs to it."""
    lines: list[CodeLine] = []
    start = 0
    is_behind_blank = False
    was_closing = False
    for number, line in enumerate(text.splitlines(keepends=True)):
        if number % CHECKED_SPANS == 0:
            check()
        content = line.strip()
        if content:
            columns = _columns(line)
            goes_on = GOES_ON.match(content) is not None
            stands_out = bool(lines) and (columns < lines[-1].columns or was_closing)
            begins = (is_behind_blank or stands_out) and not goes_on
            lines.append(CodeLine(start if lines else 0, columns, begins))
            is_behind_blank, was_closing = False, goes_on and content[0] in ")]}>"
        else:
            is_behind_blank = True
        start += len(line)
    return lines


def _columns(line: str) -> int:
    """How far a line is indented, in columns."""
    indentation = line[: len(line) - len(line.lstrip())]
    return len(indentation.expandtabs(TAB_COLUMNS)) if "\t" in indentation else len(indentation)
