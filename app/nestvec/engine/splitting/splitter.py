"""Where documents are cut into chunks: sentences, Markdown sections, blocks of code, so many tokens. Pure.

Every splitter gives spans of the text as it is, in characters (Unicode code points): nothing is trimmed, changed or
lost, and without overlap the chunks' texts joined are the document.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nestvec.engine.splitting.code import blocks, parts_of_block
from nestvec.engine.splitting.markdown import sections
from nestvec.engine.splitting.sentences import sentences
from nestvec.engine.splitting.spans import Check, Span, TokenCounter, checked, go_on

DEFAULT_CHUNK_TOKENS: Final = 128


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
