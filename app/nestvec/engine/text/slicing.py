"""Where a long text can be cut before it is tokenized, so that its parts have the tokens of the whole. Pure."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

Span = tuple[int, int]


class SafeCuts(Enum):
    """Before which spaces a text can be cut, so that its parts have the tokens of the whole, for one tokenizer.

    Attributes:
        NOWHERE: Before none that is known.
        BETWEEN_WORDS: Before a space alone between two letters or digits: words are tokenized one by one, and what the
            tokenizer makes of longer runs of blanks, or of marks and controls beside one, does not matter.
        AT_SPACES: Before any: blanks have no tokens.
    """

    NOWHERE = "nowhere"
    BETWEEN_WORDS = "between_words"
    AT_SPACES = "at_spaces"


PATTERNS: Final = {
    SafeCuts.BETWEEN_WORDS: re.compile(r"(?<=[^\W_]) (?=[^\W_])"),
    SafeCuts.AT_SPACES: re.compile(" "),
}
# Texts whose parts are tokenized when a tokenizer is read, to see where it can be cut.
PROBES: Final = (
    "one two three",
    "Zürich x1 y2 of ABC 99 東京 안녕 세계",
    "a  b   c    d. (e) ,f \tg\n h \u3000 i \x00 j\u200b k -l",
    "[MASK] a <mask> b <s> c </s> d",
    " one  two ",
)
BLANKS: Final = (" ", "  ", " " * 9, " " * 40)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a text.

    Attributes:
        start: Index of its first character.
        stop: Index behind its last character.
        is_open: Whether it ends (or starts, from the end) where nothing is known to end: no more of the text is read.
    """

    start: int
    stop: int
    is_open: bool = False

    @property
    def chars(self) -> int:
        """Number of its characters."""
        return self.stop - self.start


def find_safe_cuts(encode: Callable[[str], Sequence[int]], *, splits_at_spaces: bool) -> SafeCuts:
    """Find where a tokenizer's texts can be cut, by its own word on a few.

    Args:
        encode: Gives the ids of a text, without special tokens.
        splits_at_spaces: Whether the tokenizer cuts text at spaces before it looks at words.
    """
    if not splits_at_spaces:
        return SafeCuts.NOWHERE
    whole = [list(encode(text)) for text in PROBES]
    has_no_blanks = not any(len(encode(blanks)) for blanks in BLANKS)
    kinds = [SafeCuts.AT_SPACES] if has_no_blanks else []
    for cuts in (*kinds, SafeCuts.BETWEEN_WORDS):
        if all(
            [*encode(text[:cut]), *encode(text[cut:])] == ids
            for text, ids in zip(PROBES, whole, strict=True)
            for cut in (match.start() for match in PATTERNS[cuts].finditer(text))
        ):
            return cuts
    return SafeCuts.NOWHERE


def slices(text: str, cuts: SafeCuts, size: int, max_chars: int) -> Iterator[Slice]:
    """Cut a text from its start into parts of at least `size` characters, longer where it cannot be cut.

    Args:
        text: The text.
        cuts: Where it can be cut.
        size: Minimum number of characters of a part but the last.
        max_chars: How many characters are read; if the text has more, the last part is open.
    """
    readable = min(len(text), max_chars)
    start = 0
    while start < readable:
        stop = len(text)
        if cuts is not SafeCuts.NOWHERE and start + size < readable:
            match = PATTERNS[cuts].search(text, start + size, readable)
            stop = match.start() if match else stop
        yield Slice(start, min(stop, readable), is_open=stop > readable)
        start = stop


def slices_from_end(text: str, cuts: SafeCuts, size: int, max_chars: int) -> Iterator[Slice]:
    """Cut a text from its end into parts of at least `size` characters, longer where it cannot be cut.

    Args:
        text: The text.
        cuts: Where it can be cut.
        size: Minimum number of characters of a part but the first of the text.
        max_chars: How many characters are read; if the text has more, the part read last is open.
    """
    first = max(0, len(text) - max_chars)
    stop = len(text)
    while stop > first:
        start, reach = None, size
        while start is None and cuts is not SafeCuts.NOWHERE and stop - reach > first:
            low = max(first + 1, stop - 2 * reach)
            match = PATTERNS[cuts].search(text, low, stop - reach + 1)
            start = match.start() if match else None
            reach *= 2
        if start is None:
            yield Slice(first, stop, is_open=first > 0)
            return
        yield Slice(start, stop)
        stop = start


def input_slices(texts: Sequence[str], prompt_chars: int, size: int) -> Iterator[tuple[int, int]]:
    """Group texts that follow each other into slices of at most `size` characters; a longer text is alone in one.

    Args:
        texts: The texts.
        prompt_chars: Number of characters that each of them gets before it.
        size: Maximum number of characters of a slice, prompts included.

    Yields:
        Index of a slice's first text, and the index behind its last one.
    """
    start = chars = 0
    for index, text in enumerate(texts):
        chars += prompt_chars + len(text)
        if chars > size and index > start:
            yield start, index
            start, chars = index, prompt_chars + len(text)
    if start < len(texts):
        yield start, len(texts)


def last_safe_cut(text: str, chars: int, *, tries: int = 32) -> int | None:
    """The last space alone between two letters or digits before index `chars`; None if none of the last few is one."""
    end = chars
    for _ in range(tries):
        end = text.rfind(" ", 1, end)
        if end < 0:
            return None
        if text[end - 1].isalnum() and text[end + 1 : end + 2].isalnum():
            return end
    return None
