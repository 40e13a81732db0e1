"""Where documents are cut into chunks: sentences, Markdown sections, so many tokens. Pure but for two libraries.

Every splitter gives spans of the text as it is, in characters (Unicode code points): nothing is trimmed, changed or
lost, and without overlap the chunks' texts joined are the document.

Source: sentences by Wikimedia's sentencex (pragmatic rules for some 240 languages); headings by CommonMark's own
grammar (markdown-it-py), so that a `#` in a code block is none.
"""

import itertools
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

Span = tuple[int, int]
Count = Callable[[int, int], int]  # tokens of a part of the document

DEFAULT_CHUNK_TOKENS: Final = 128
PIECE_CHARS: Final = (
    2000  # a longer sentence is cut, and is longer than windows of most models anyway
)
UNSETTLED_CHARS: Final = 40
LINE_ENDS: Final = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
PLAIN: Final = {
    code: "\n" if chr(code) in LINE_ENDS else " "
    for code in range(sys.maxunicode + 1)
    if chr(code).isspace()
}


class SplitterKind(StrEnum):
    """Which rule cuts."""

    SENTENCES = "sentences"
    TOKENS = "tokens"
    MARKDOWN = "markdown"


@dataclass(frozen=True, slots=True)
class Splitter:
    """How documents are cut.

    Attributes:
        chunk_tokens: For tokens: of each chunk. For sentences: so many are filled up with whole sentences; 0: a chunk
            each. For Markdown: longer sections are cut at sentences; 0: none are.
        overlap_tokens: Of tokens: what a chunk shares with the one before.
        language: ISO code, for sentences.
    """

    kind: SplitterKind
    chunk_tokens: int = 0
    overlap_tokens: int = 0
    language: str = "en"

    @property
    def size(self) -> int:
        """Tokens of a chunk that is cut by tokens."""
        return self.chunk_tokens or DEFAULT_CHUNK_TOKENS

    def spans(self, text: str, starts: Sequence[int]) -> list[Span]:
        """Cut a document.

        Args:
            text: All of it.
            starts: Where each of its tokens starts, in characters, rising.
        """

        def count(start: int, stop: int) -> int:
            return bisect_right(starts, stop - 1) - bisect_right(starts, start - 1)

        if self.kind is SplitterKind.TOKENS:
            found = self._by_tokens(text, starts)
        elif self.kind is SplitterKind.SENTENCES:
            found = self._filled(sentences(text, self.language), count)
        else:
            found = [
                part for section in sections(text) for part in self._within(text, section, count)
            ]
        return list(_without_empty(found, count))

    def _by_tokens(self, text: str, starts: Sequence[int]) -> list[Span]:
        """Chunks of so many tokens; each begins where its first token does, and ends where the next begins."""
        size = self.size
        step = size - self.overlap_tokens
        first = range(0, max(1, len(starts) - self.overlap_tokens), step)
        edges = [0, *starts[1:], len(text)] if starts else [0, len(text)]
        return [(edges[n], edges[min(n + size, len(edges) - 1)]) for n in first]

    def _within(self, text: str, section: Span, count: Count) -> list[Span]:
        """A section whole, or cut at its sentences."""
        start, stop = section
        if not self.chunk_tokens or count(start, stop) <= self.chunk_tokens:
            return [section]
        own = sentences(text[start:stop], self.language)
        return self._filled([(start + a, start + b) for a, b in own], count)

    def _filled(self, parts: Sequence[Span], count: Count) -> list[Span]:
        """Neighbours together, as many as fit."""
        found: list[Span] = []
        for start, stop in parts:
            if found and self.chunk_tokens and count(found[-1][0], stop) <= self.chunk_tokens:
                found[-1] = (found[-1][0], stop)
            else:
                found.append((start, stop))
        return found


def sentences(text: str, language: str = "en") -> list[Span]:
    """Sentences with the white space behind them; together they are the text.

    The library is given a piece at a time, and what it finds last in one stands at the head of the next: its time grows
    with the square of what it is given in some scripts (1.0.32: ten minutes for a megabyte of Chinese).
    """
    plain = _plain_spaces(text)
    edges = [0]
    while edges[-1] < len(text):
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
    import sentencex  # loads its tables, for the few who ask

    try:
        found = sentencex.get_sentence_boundaries(language, text)
    except BaseException as error:
        # A panic of the library's (in Rust) is no Exception; without sentences the text is one.
        if type(error).__name__ != "PanicException":
            raise
        return []
    return sorted({end for one in found if 0 < (end := int(one["end_index"])) <= len(text)})


def sections(text: str) -> list[Span]:
    """Parts of a Markdown text, each from a heading to the next; what stands before the first is one too."""
    from markdown_it import MarkdownIt

    line_starts = [0]
    for line in text.splitlines(keepends=True):
        line_starts.append(line_starts[-1] + len(line))
    edges = {0, len(text)}
    parser = MarkdownIt("commonmark")
    parser.core.ruler.enableOnly(
        ["normalize", "block"]
    )  # what is inside paragraphs is of no interest
    for token in parser.parse(_lines_as_parsed(text)):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            edges.add(line_starts[token.map[0]])
    ordered = sorted(edges)
    return list(itertools.pairwise(ordered))


def _plain_spaces(text: str) -> str:
    """The same with spaces and line feeds for all other white space, character for character.

    sentencex 1.0.32 panics on wide spaces behind initials, and takes CR LF for two line ends.
    """
    return text.replace("\r\n", " \n").translate(PLAIN)


def _lines_as_parsed(text: str) -> str:
    """The same lines, each ended by a line feed: the parser knows fewer line ends than Python."""
    return "".join(line + "\n" for line in text.splitlines())


def _without_empty(spans: Sequence[Span], count: Count) -> Iterator[Span]:
    """Spans that hold a token; what holds none goes to the chunk before it, else to the one behind."""
    held: Span | None = None
    lead: int | None = None
    for start, stop in spans:
        if count(start, stop) == 0:
            if held is not None:
                held = (held[0], max(held[1], stop))
            elif lead is None:
                lead = start
            continue
        if held is not None:
            yield held
        held = (start if lead is None else lead, stop)
        lead = None
    if held is not None:
        yield held
