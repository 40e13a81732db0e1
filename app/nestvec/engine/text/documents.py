"""Documents and long texts to token ids: late chunking, and overlapping windows where one does not hold them.

Special tokens (and a prompt) before a document belong to a chunk that starts with it, those behind to one that ends
with it: a lone chunk is pooled as any input is. A chunk's tokens are those that start in it.

Source: late chunking (arXiv:2409.04701).
"""

import itertools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nestvec.engine.results import Chunk
from nestvec.engine.splitting import Span, Splitter
from nestvec.engine.text.encoded import Encoded, TokenizeOptions, Windows
from nestvec.engine.text.long_texts import SLICE_CHARS, check_chars
from nestvec.engine.text.slicing import input_slices
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.windows import Bounds, window_bounds
from nestvec.engine.types import IdArray, Truncation
from nestvec.errors import BackendError, InputError, InputTooLongError


def encode_chunks(tokenizer: Tokenizer, chunks: Sequence[str], options: TokenizeOptions) -> Encoded:
    """Tokenize consecutive chunks of a document as one input, with a span for each.

    Each chunk is tokenized separately, so that no token spans two.

    Args:
        tokenizer: The model's tokenizer.
        chunks: The chunks' texts, at least one.
        options: What to do beyond the limit, and what stands before and around.

    Raises:
        InputTooLongError: The document is too long and nothing is to be cut; names the first chunk beyond the limit.
        InputError: A chunk has no token, or none is left of it after truncation; names the chunk.
    """
    parts = tokenizer.encode_plain([options.prompt + chunks[0], *chunks[1:]], options)
    empty = [index for index, part in enumerate(parts) if not len(part)]
    if len(parts) > 1 and empty:
        raise InputError("this chunk has no token", param="input", input_index=empty[0])
    ends = [0, *itertools.accumulate(len(part) for part in parts)]
    frame = _Frame(
        *tokenizer.special_token_frame(options), tokenizer.max_length(options), tokenizer.padded
    )
    return frame.around(np.concatenate(parts), list(itertools.pairwise(ends)), options)


def encode_split(
    tokenizer: Tokenizer,
    text: str,
    split: Sequence[Span] | Splitter,
    options: TokenizeOptions,
    document: int,
) -> Encoded:
    """Tokenize a document once, and find the tokens of each of its chunks.

    Args:
        tokenizer: The model's tokenizer.
        text: The document.
        split: Its chunks in characters, in any order, which may overlap or leave parts out; or what finds them.
        options: What to do beyond the limit, and what stands before and around.
        document: The document's index in the call.

    Raises:
        InputTooLongError: The document is too long and nothing is to be cut.
        InputError: A span lies outside the text or holds no token; names the document and the span.
    """
    check_chars(text, document)
    prefix_ids, suffix_ids = tokenizer.special_token_frame(options)
    ids, starts = tokenizer.encode_with_starts(options.prompt + text, options, document)
    prompt_tokens = int(np.searchsorted(starts, len(options.prompt)))
    starts = starts[prompt_tokens:] - len(options.prompt)
    spans: Sequence[Span] = (
        split.spans(text, array("q", starts.tobytes()), options.ticket.check)
        if isinstance(split, Splitter)
        else split
    )
    if not spans:
        raise InputError("this document has no token", param="input", input_index=document)
    if options.budget is not None:
        options.budget.add_chunks(len(spans))
    chunks, token_spans = [], []
    places = np.searchsorted(starts, spans).tolist()
    for number, ((start, stop), (first, last)) in enumerate(zip(spans, places, strict=True)):
        is_inside = 0 <= start < stop <= len(text)
        if not is_inside or first == last:
            reason = "holds no token" if is_inside else "lies outside the document"
            raise InputError(
                f"span {number} of document {document} {reason} (spans are [start, stop) in Unicode characters)",
                param="late_chunking",
                input_index=document,
            )
        chunks.append(Chunk(document, start, stop, last - first))
        token_spans.append((first, last))
    before = np.concatenate([prefix_ids, ids[:prompt_tokens]])
    frame = _Frame(before, suffix_ids, tokenizer.max_length(options), tokenizer.padded)
    try:
        encoded = frame.around(ids[prompt_tokens:], token_spans, options)
    except InputError as error:
        error.input_index = document
        raise
    return replace(encoded, chunks=tuple(chunks))


def encode_windows(
    tokenizer: Tokenizer, texts: Sequence[str], options: TokenizeOptions
) -> list[Encoded]:
    """Tokenize texts; those that are too long become overlapping windows with special tokens and prompt around each.

    Args:
        tokenizer: The model's tokenizer.
        texts: Any Unicode but lone surrogates.
        options: The limit, and what stands before and around.
    """
    prefix_ids, suffix_ids = tokenizer.special_token_frame(options)
    prompt = options.prompt
    prompt_tokens = len(tokenizer.encode_plain([prompt], options)[0]) if prompt else 0
    encoded: list[Encoded] = []
    for start, stop in input_slices(texts, len(prompt), SLICE_CHARS):
        try:
            contents = tokenizer.encode_plain(
                [prompt + text for text in texts[start:stop]], options
            )
        except (InputError, BackendError) as error:
            error.input_index = start + (error.input_index or 0)
            raise
        for index, ids in enumerate(contents, start):
            if not len(ids):  # the tokenizer knows what stands for a text without tokens
                encoded += tokenizer.encode_texts([texts[index]], options)
                continue
            before = np.concatenate([prefix_ids, ids[:prompt_tokens]])
            frame = _Frame(before, suffix_ids, tokenizer.max_length(options), tokenizer.padded)
            encoded.append(frame.around(ids[prompt_tokens:], [], options))
    return encoded


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stands around each window of an input.

    Attributes:
        prefix_ids: Ids before the content, (n,), int32.
        suffix_ids: Ids behind it, (n,), int32.
        max_length: Maximum number of tokens of a window, both included.
        padded: Puts the padding around that the model reads.
    """

    prefix_ids: IdArray
    suffix_ids: IdArray
    max_length: int
    padded: Callable[[IdArray], IdArray]

    @property
    def content_length(self) -> int:
        """Number of the input's own tokens that a window holds."""
        return self.max_length - len(self.prefix_ids) - len(self.suffix_ids)

    def around(self, content: IdArray, spans: Sequence[Span], options: TokenizeOptions) -> Encoded:
        """Put the frame around an input, and around each of its windows.

        Args:
            content: The input's own ids, (n,), int32.
            spans: Its spans in tokens of `content`.
            options: What to do beyond the limit.

        Raises:
            InputTooLongError: The input is too long and nothing is to be cut; names the first span beyond the limit.
            InputError: The prompt leaves no room, the input has no token, or a span is cut off whole.
        """
        if self.content_length < 1:
            raise InputError("the prompt leaves no room for a text", param="prompt")
        if not len(self.prefix_ids) + len(content) + len(self.suffix_ids):
            raise InputError("this input has no token", param="input", input_index=0)
        if len(content) <= self.content_length:
            options.note_tokens(len(self.prefix_ids) + len(content) + len(self.suffix_ids))
            return Encoded(
                self._framed(content),
                is_truncated=False,
                spans=self._with_frame(spans, len(content)),
            )
        if options.truncate is Truncation.WINDOWS:
            bounds = window_bounds(len(content), self.content_length)
            if options.budget is not None:
                options.budget.add_windows(len(bounds), len(bounds) * self.max_length)
            return self._windowed(content, spans, bounds)
        if options.truncate is Truncation.ERROR:
            beyond = (n for n, (_, stop) in enumerate(spans) if stop > self.content_length)
            raise InputTooLongError(
                got_tokens=len(content) + self.max_length - self.content_length,
                limit_tokens=self.max_length,
                input_index=next(beyond, 0),
            )
        options.note_tokens(self.max_length)
        return self._truncated(content, spans, options.truncate)

    def _windowed(self, content: IdArray, spans: Sequence[Span], bounds: Bounds) -> Encoded:
        """An input that runs as overlapping windows."""
        parts = tuple(
            Encoded(self._framed(content[start:stop]), is_truncated=False) for start, stop in bounds
        )
        return Encoded(
            self._framed(content),
            is_truncated=False,
            spans=self._with_frame(spans, len(content)),
            windows=Windows(parts, bounds, len(self.prefix_ids), len(self.suffix_ids)),
        )

    def _truncated(self, content: IdArray, spans: Sequence[Span], truncate: Truncation) -> Encoded:
        """An input without the tokens beyond the limit, and its spans without them."""
        length = self.content_length
        excess = len(content) - length
        first = excess if truncate is Truncation.START else 0
        kept = [
            tuple(np.clip([start - first, stop - first], 0, length).tolist())
            for start, stop in spans
        ]
        lost = next((n for n, (start, stop) in enumerate(kept) if start == stop), None)
        if lost is not None and len(spans) > 1:
            raise InputError(
                f"the document is over {self.max_length} tokens, and nothing is left of this chunk after truncation",
                param="input",
                input_index=lost,
                code="context_length_exceeded",
            )
        return Encoded(
            self._framed(content[first : first + length]),
            is_truncated=True,
            spans=self._with_frame(kept, length),
            dropped_tokens=excess,
        )

    def _framed(self, content: IdArray) -> IdArray:
        return self.padded(np.concatenate([self.prefix_ids, content, self.suffix_ids]))

    def _with_frame(self, spans: Sequence[Span], tokens: int) -> tuple[Span, ...]:
        """Spans in the framed ids; those at the edges get what stands around."""
        before = len(self.prefix_ids)
        total = before + tokens + len(self.suffix_ids)
        return tuple(
            (0 if start == 0 else before + start, total if stop == tokens else before + stop)
            for start, stop in spans
        )
