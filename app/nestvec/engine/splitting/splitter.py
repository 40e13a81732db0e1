"""Where documents are cut into chunks: sentences, sections, blocks of code, turns of matter, so many tokens. Pure.

Every splitter gives spans of the text as it is, in characters (Unicode code points): nothing is trimmed, changed or
lost, and without overlap the chunks' texts joined are the document.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.splitting.code import blocks, parts_of_block
from nestvec.engine.splitting.markdown import sections
from nestvec.engine.splitting.semantic import boundaries
from nestvec.engine.splitting.sentences import sentences
from nestvec.engine.splitting.spans import Check, Span, TokenCounter, checked, go_on

DEFAULT_CHUNK_TOKENS: Final = 128


class SplitterKind(StrEnum):
    """The rule that cuts a document."""

    SENTENCES = "sentences"
    TOKENS = "tokens"
    MARKDOWN = "markdown"
    CODE = "code"
    SEMANTIC = "semantic"  # needs vectors of the sentences first: `edges`


@dataclass(frozen=True, slots=True)
class Splitter:
    """How documents are cut.

    Attributes:
        kind: The rule that cuts.
        chunk_tokens: By tokens: the size of each chunk. By sentences: chunks of at most so many tokens are filled up
            with whole sentences; 0: each sentence is a chunk. By Markdown sections: longer sections are cut at
            sentences; 0: none are. By blocks of code: longer blocks are cut at inner ones, and short ones fill a chunk
            up; 0: each top-level block is a chunk. By turns of matter: see `boundaries`; 0: no bound.
        overlap_tokens: By tokens: how many a chunk shares with the one before.
        language: ISO code of the language, for sentences.
        edges: By turns of matter: where the chunks of this very document begin, in characters, rising, the first apart;
            None where that is not known yet.
    """

    kind: SplitterKind
    chunk_tokens: int = 0
    overlap_tokens: int = 0
    language: str = "en"
    edges: tuple[int, ...] | None = None

    @property
    def needs_sentences(self) -> bool:
        """Whether vectors of the document's sentences are needed before it can be cut."""
        return self.kind is SplitterKind.SEMANTIC and self.edges is None

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

        Raises:
            ValueError: The text's edges are needed first.
        """
        count = token_counter(starts)
        if self.kind is SplitterKind.TOKENS:
            spans = self._by_tokens(text, starts)
        elif self.kind is SplitterKind.SENTENCES:
            spans = self._merged(sentences(text, self.language, check), count, check)
        elif self.kind is SplitterKind.CODE:
            spans = self._by_blocks(text, count, check)
        elif self.kind is SplitterKind.SEMANTIC:
            if self.edges is None:
                raise ValueError("the edges of this document are not known yet")
            spans = list(itertools.pairwise((0, *self.edges, len(text))))
        else:
            spans = [
                part
                for section in sections(text, check)
                for part in self._within(text, section, count, check)
            ]
        return list(_without_empty(checked(spans, check), count))

    def sentences(self, text: str, starts: Sequence[int], check: Check = go_on) -> list[Span]:
        """Cut a document into its sentences, each of which holds a token: what vectors are needed of first."""
        found = sentences(text, self.language, check)
        return list(_without_empty(checked(found, check), token_counter(starts)))

    def with_edges(
        self,
        spans: Sequence[Span],
        vectors: NDArray[np.float32],
        starts: Sequence[int],
        check: Check = go_on,
    ) -> "Splitter":
        """Return the splitter of one document, whose sentences' vectors are known.

        Args:
            spans: The document's sentences, from `sentences`.
            vectors: Their vectors, (n, D), of unit length.
            starts: Where each of the document's tokens starts, in characters, rising.
            check: Called now and then; what it raises ends the work.
        """
        count = token_counter(starts)
        tokens = [count(*span) for span in checked(spans, check)]
        firsts = boundaries(vectors, tokens, self.chunk_tokens, check)
        return replace(self, edges=tuple(spans[first][0] for first in firsts))

    def _by_blocks(self, text: str, count: TokenCounter, check: Check) -> list[Span]:
        """Top-level blocks; or parts of them that fit into a chunk, which is filled up."""
        found = blocks(text, check)
        starts = [block[0].start for block in found]
        whole = list(itertools.pairwise((*starts, len(text))))
        if not self.chunk_tokens:
            return whole
        parts: list[Span] = []
        for block, (_, stop) in zip(found, whole, strict=True):
            parts += parts_of_block(
                block, stop, lambda a, b: count(a, b) <= self.chunk_tokens, check
            )
        return self._merged(parts, count, check)

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


def token_counter(starts: Sequence[int]) -> TokenCounter:
    """Return what counts the tokens that start in a span of a document.

    Args:
        starts: Where each of its tokens starts, in characters, rising.
    """

    def count(start: int, stop: int) -> int:
        return bisect_right(starts, stop - 1) - bisect_right(starts, start - 1)

    return count


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
