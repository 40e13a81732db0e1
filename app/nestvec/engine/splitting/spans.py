"""Spans of a text, and what long work on them asks now and then."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

Span = tuple[int, int]
# Counts the tokens that start in text[start:stop] of a document.
TokenCounter = Callable[[int, int], int]
# Called now and then while a long document is cut; raises where nobody waits for it any more.
Check = Callable[[], None]

# Spans are looked at one by one; so many take some milliseconds.
CHECKED_SPANS: Final = 4096


def go_on() -> None:
    """Never end the work: for texts that nobody waits for."""


def checked(spans: Sequence[Span], check: Check) -> Iterator[Span]:
    """Yield spans, with a check before each few thousand of them."""
    for first in range(0, len(spans), CHECKED_SPANS):
        check()
        yield from spans[first : first + CHECKED_SPANS]
