"""Where documents are cut into chunks: sentences, Markdown sections, so many tokens. Pure but for two libraries.

Every splitter gives spans of the text as it is, in characters (Unicode code points): nothing is trimmed, changed or
lost, and without overlap the chunks' texts joined are the document.

Source: sentences by Wikimedia's sentencex (pragmatic rules for some 240 languages); headings by CommonMark's own
grammar (markdown-it-py), so that a `#` in a code block is none.
"""

import itertools
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

Span = tuple[int, int]
# Counts the tokens that start in text[start:stop] of a document.
TokenCounter = Callable[[int, int], int]
# Called now and then while a long document is cut; raises where nobody waits for it any more.
Check = Callable[[], None]

DEFAULT_CHUNK_TOKENS: Final = 128
# Text that sentences are looked for in at a time. A longer sentence is cut, and is longer than most models' windows
# anyway.
PIECE_CHARS: Final = 2000
# Sentence ends that close to the end of a piece are found again in the next one.
UNSETTLED_CHARS: Final = 40
LINE_ENDS: Final = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
PLAIN: Final = {
    code: "\n" if chr(code) in LINE_ENDS else " "
    for code in range(sys.maxunicode + 1)
    if chr(code).isspace()
}
# Spans are looked at one by one; so many take some milliseconds.
CHECKED_SPANS: Final = 4096


def go_on() -> None:
    """Never end the work: for texts that nobody waits for."""


class SplitterKind(StrEnum):
    """The rule that cuts a document."""

    SENTENCES = "sentences"
    TOKENS = "tokens"
    MARKDOWN = "markdown"


@dataclass(frozen=True, slots=True)
class Splitter:
    """How documents are cut.

    Attributes:
        kind: The rule that cuts.
        chunk_tokens: By tokens: the size of each chunk. By sentences: chunks of at most so many tokens are filled up
            with whole sentences; 0: each sentence is a chunk. By Markdown sections: longer sections are cut at
            sentences; 0: none are.
        overlap_tokens: By tokens: how many a chunk shares with the one before.
        language: ISO code of the language, for sentences.
    """

    kind: SplitterKind
    chunk_tokens: int = 0
    overlap_tokens: int = 0
    language: str = "en"

    @property
    def size(self) -> int:
        """Number of tokens of a chunk that is cut by tokens."""
        return self.chunk_tokens or DEFAULT_CHUNK_TOKENS

    def spans(self, text: str, starts: Sequence[int], check: Check = go_on) -> list[Span]:
        """Cut a document into chunks.

        Args:
            text: The document.
            starts: Where each of its tokens starts, in characters, rising.
            check: Called now and then; what it raises ends the work.

        Returns:
            The chunks as (start, stop) in characters; each holds a token.
        """

        def count(start: int, stop: int) -> int:
            return bisect_right(starts, stop - 1) - bisect_right(starts, start - 1)

        if self.kind is SplitterKind.TOKENS:
            spans = self._by_tokens(text, starts)
        elif self.kind is SplitterKind.SENTENCES:
            spans = self._merged(sentences(text, self.language, check), count, check)
        else:
            spans = [
                part
                for section in sections(text, check)
                for part in self._within(text, section, count, check)
            ]
        return list(_without_empty(checked(spans, check), count))

    def _by_tokens(self, text: str, starts: Sequence[int]) -> list[Span]:
        """Chunks of `size` tokens; each begins where its first token does, and ends where the next begins."""
        size = self.size
        step = size - self.overlap_tokens
        firsts = range(0, max(1, len(starts) - self.overlap_tokens), step)
        edges = [0, *starts[1:], len(text)] if starts else [0, len(text)]
        return [(edges[n], edges[min(n + size, len(edges) - 1)]) for n in firsts]

    def _within(self, text: str, section: Span, count: TokenCounter, check: Check) -> list[Span]:
        """A section whole, or cut at its sentences."""
        start, stop = section
        if not self.chunk_tokens or count(start, stop) <= self.chunk_tokens:
            return [section]
        parts = sentences(text[start:stop], self.language, check)
        return self._merged([(start + first, start + last) for first, last in parts], count, check)

    def _merged(self, parts: Sequence[Span], count: TokenCounter, check: Check) -> list[Span]:
        """Neighbouring parts merged, as many as fit in a chunk."""
        chunks: list[Span] = []
        for start, stop in checked(parts, check):
            if chunks and self.chunk_tokens and count(chunks[-1][0], stop) <= self.chunk_tokens:
                chunks[-1] = (chunks[-1][0], stop)
            else:
                chunks.append((start, stop))
        return chunks


def checked(spans: Sequence[Span], check: Check) -> Iterator[Span]:
    """Yield spans, with a check before each few thousand of them."""
    for first in range(0, len(spans), CHECKED_SPANS):
        check()
        yield from spans[first : first + CHECKED_SPANS]


def sentences(text: str, language: str = "en", check: Check = go_on) -> list[Span]:
    """Cut a text into sentences, each with the white space behind it; together they are the text.

    The library is given a piece at a time, and the sentence it finds last in one stands at the head of the next: in
    some scripts its time grows with the square of what it is given (1.0.32: ten minutes for a megabyte of Chinese).

    Args:
        text: The text.
        language: ISO code of its language.
        check: Called before each piece; what it raises ends the work.
    """
    plain = _plain_spaces(text)
    edges = [0]
    while edges[-1] < len(text):
        check()
        start = edges[-1]
        stop = min(start + PIECE_CHARS, len(text))
        ends = [start + end for end in _sentence_ends(plain[start:stop], language)]
        if stop == len(text):
            ends = sorted({*ends, stop})
        else:  # near its end a piece does not show what comes next, which may join two sentences
            ends = [end for end in ends if end <= stop - UNSETTLED_CHARS] or [stop]
        edges += ends
    return list(itertools.pairwise(edges))


def _sentence_ends(text: str, language: str) -> list[int]:
    """Where sentences of a piece end, rising."""
    import sentencex  # loads its tables: only for the few calls that need them

    try:
        boundaries = sentencex.get_sentence_boundaries(language, text)
    except BaseException as error:
        # A panic of the library's (in Rust) is no Exception; without sentences the text is one.
        if type(error).__name__ != "PanicException":
            raise
        return []
    ends = {int(boundary["end_index"]) for boundary in boundaries}
    return sorted(end for end in ends if 0 < end <= len(text))


def sections(text: str, check: Check = go_on) -> list[Span]:
    """Cut a Markdown text into sections, each from a heading to the next; what stands before the first is one too.

    Args:
        text: The text.
        check: Called at each line that may begin a block; what it raises ends the work.
    """
    from markdown_it import MarkdownIt

    def begins_no_block(*_: object) -> bool:
        check()
        return False

    line_starts = [0]
    for line in text.splitlines(keepends=True):
        line_starts.append(line_starts[-1] + len(line))
    edges = {0, len(text)}
    parser = MarkdownIt("commonmark")
    # What is inside paragraphs is of no interest.
    parser.core.ruler.enableOnly(["normalize", "block"])
    # Rules are asked at each line, also within paragraphs, quotes and lists, so that one can end the parser's work.
    parser.block.ruler.before(
        "code",
        "check",
        begins_no_block,
        {"alt": ["paragraph", "reference", "blockquote", "list"]},
    )
    for token in parser.parse(_lines_as_parsed(text)):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            edges.add(line_starts[token.map[0]])
    ordered = sorted(edges)
    return list(itertools.pairwise(ordered))


def _plain_spaces(text: str) -> str:
    """The text with spaces and line feeds for all other white space, character for character.

    sentencex 1.0.32 panics on wide spaces behind initials, and takes CR LF for two line ends.
    """
    return text.replace("\r\n", " \n").translate(PLAIN)


def _lines_as_parsed(text: str) -> str:
    """The text with each line ended by a line feed: the parser knows fewer line ends than Python."""
    return "".join(line + "\n" for line in text.splitlines())


def _without_empty(spans: Iterable[Span], count: TokenCounter) -> Iterator[Span]:
    """The spans that hold a token; one that holds none is merged into the span before it, else into the one behind."""
    pending: Span | None = None
    empty_start: int | None = None
    for start, stop in spans:
        if count(start, stop) == 0:
            if pending is not None:
                pending = (pending[0], max(pending[1], stop))
            elif empty_start is None:
                empty_start = start
            continue
        if pending is not None:
            yield pending
        pending = (start if empty_start is None else empty_start, stop)
        empty_start = None
    if pending is not None:
        yield pending
