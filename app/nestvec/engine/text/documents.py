"""Documents and long texts to token ids: late chunking, and overlapping windows where one does not hold them.

Special tokens (and a prompt) before a document belong to a chunk that starts with it, those behind to one that ends
with
it: a lone chunk is pooled as any input is. A chunk's tokens are those that start in it.

Source: late chunking (arXiv:2409.04701).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nestvec.engine.splitting import Span, Splitter
from nestvec.engine.text.encoded import Encoded, Fit, Windows
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.windows import window_bounds
from nestvec.engine.types import Chunk, IdArray, Truncation
from nestvec.errors import InputError, InputTooLongError


def encode_chunks(tokenizer: Tokenizer, chunks: Sequence[str], fit: Fit) -> Encoded:
    """Tokenise consecutive chunks of a document as one input, with a span for each.

    Each chunk is tokenised for itself, so that no token spans two.

    Args:
        tokenizer: The model's.
        chunks: At least one.
        fit: As for texts.

    Raises:
        InputTooLongError: The document is too long and nothing is to be cut; names the first chunk beyond the limit.
        InputError: A chunk has no token, or none is left of it after truncation; names it.
    """
    parts = tokenizer.encode_plain([fit.prefix + chunks[0], *chunks[1:]])
    if len(parts) > 1 and (empty := [i for i, part in enumerate(parts) if not len(part)]):
        raise InputError("this chunk has no token", param="input", input_index=empty[0])
    ends = [0, *itertools.accumulate(len(part) for part in parts)]
    frame = _Frame(*tokenizer.frame(fit), room=tokenizer.room(fit))
    return frame.around(np.concatenate(parts), list(itertools.pairwise(ends)), fit)


def encode_split(
    tokenizer: Tokenizer, text: str, split: Sequence[Span] | Splitter, fit: Fit, document: int
) -> Encoded:
    """Tokenise a document once, and find the tokens of each of its chunks.

    Args:
        tokenizer: The model's.
        text: The document.
        split: Its chunks in characters, in any order, which may overlap or leave parts out; or what finds them.
        fit: As for texts.
        document: Its index.

    Raises:
        InputTooLongError: The document is too long and nothing is to be cut.
        InputError: A span lies outside the text or holds no token; names the document and the span.
    """
    lead, tail = tokenizer.frame(fit)
    ids, starts = tokenizer.encode_with_starts(fit.prefix + text)
    own = int(np.searchsorted(starts, len(fit.prefix)))
    starts = starts[own:] - len(fit.prefix)
    spans = split.spans(text, starts.tolist()) if isinstance(split, Splitter) else split
    if not spans:
        raise InputError("this document has no token", param="input", input_index=document)
    chunks, places = [], []
    for number, (start, stop) in enumerate(spans):
        first, last = np.searchsorted(starts, [start, stop]).tolist()
        if not 0 <= start < stop <= len(text) or first == last:
            why = (
                "holds no token" if 0 <= start < stop <= len(text) else "lies outside the document"
            )
            raise InputError(
                f"span {number} of document {document} {why} (spans are [start, stop) in Unicode characters)",
                param="late_chunking",
                input_index=document,
            )
        chunks.append(Chunk(document, start, stop, last - first))
        places.append((first, last))
    frame = _Frame(np.concatenate([lead, ids[:own]]), tail, tokenizer.room(fit))
    try:
        return replace(frame.around(ids[own:], places, fit), chunks=tuple(chunks))
    except InputError as error:
        error.input_index = document
        raise


def encode_windows(tokenizer: Tokenizer, texts: Sequence[str], fit: Fit) -> list[Encoded]:
    """Tokenise texts, those that are too long in overlapping windows, each with the special tokens and the prompt.

    Args:
        tokenizer: The model's.
        texts: Any Unicode but lone surrogates.
        fit: As for texts.
    """
    lead, tail = tokenizer.frame(fit)
    prompt = len(tokenizer.encode_plain([fit.prefix])[0]) if fit.prefix else 0
    found = []
    for index, ids in enumerate(tokenizer.encode_plain([fit.prefix + text for text in texts])):
        if not len(ids):  # what stands for a text without tokens is the tokenizer's to know
            found += tokenizer.encode_texts([texts[index]], fit)
            continue
        own = _Frame(np.concatenate([lead, ids[:prompt]]), tail, tokenizer.room(fit))
        found.append(own.around(ids[prompt:], [], fit))
    return found


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stands around each window.

    Attributes:
        lead: Ids before.
        tail: Ids behind.
        room: Tokens of a window with them.
    """

    lead: IdArray
    tail: IdArray
    room: int

    @property
    def most(self) -> int:
        """Tokens of its own that a window holds."""
        return self.room - len(self.lead) - len(self.tail)

    def around(self, content: IdArray, spans: Sequence[Span], fit: Fit) -> Encoded:
        """A whole input, its spans in the tokens of `content`."""
        if self.most < 1:
            raise InputError("the prompt leaves no room for a text", param="prompt")
        if not len(self.lead) + len(content) + len(self.tail):
            raise InputError("this input has no token", param="input", input_index=0)
        over = len(content) - self.most
        if over <= 0:
            return Encoded(
                self._whole(content), is_truncated=False, spans=self._edged(spans, len(content))
            )
        if fit.truncate is Truncation.WINDOWS:
            bounds = window_bounds(len(content), self.most)
            parts = tuple(Encoded(self._whole(content[a:b]), is_truncated=False) for a, b in bounds)
            return Encoded(
                self._whole(content),
                is_truncated=False,
                spans=self._edged(spans, len(content)),
                windows=Windows(parts, bounds, len(self.lead), len(self.tail)),
            )
        if fit.truncate is Truncation.ERROR:
            beyond = next((n for n, (_, stop) in enumerate(spans) if stop > self.most), 0)
            raise InputTooLongError(
                got_tokens=len(content) + self.room - self.most,
                limit_tokens=self.room,
                input_index=beyond,
            )
        first = over if fit.truncate is Truncation.START else 0
        kept = [tuple(np.clip([a - first, b - first], 0, self.most).tolist()) for a, b in spans]
        lost = next((n for n, (start, stop) in enumerate(kept) if start == stop), None)
        if lost is not None and len(spans) > 1:
            raise InputError(
                f"the document is over {self.room} tokens, and nothing is left of this chunk after truncation",
                param="input",
                input_index=lost,
                code="context_length_exceeded",
            )
        return Encoded(
            self._whole(content[first : first + self.most]),
            is_truncated=True,
            spans=self._edged(kept, self.most),
            dropped_tokens=over,
        )

    def _whole(self, content: IdArray) -> IdArray:
        return np.concatenate([self.lead, content, self.tail])

    def _edged(self, spans: Sequence[Span], tokens: int) -> tuple[Span, ...]:
        """Spans in the ids with what stands around, which goes to those at the edges."""
        lead, whole = len(self.lead), len(self.lead) + tokens + len(self.tail)
        return tuple(
            (0 if start == 0 else lead + start, whole if stop == tokens else lead + stop)
            for start, stop in spans
        )
