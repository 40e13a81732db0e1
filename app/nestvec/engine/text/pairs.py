"""Pairs of texts to token ids, as a cross-encoder reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding

from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.long_texts import LongTextEncoder, ReadText, cut_pair
from nestvec.engine.text.tokenizer_library import GuardedLibrary
from nestvec.engine.text.truncation import longest_first
from nestvec.engine.types import Pair, Truncation
from nestvec.errors import InputError


@dataclass(slots=True)
class PairEncoder:
    """Tokenizes the pairs of one call, one after the other; a first text that comes again is tokenized once.

    Attributes:
        library: The tokenizer's library.
        long_texts: Tokenizes long texts of its.
        max_length: Maximum number of tokens of a pair, special tokens included.
        unsliced_chars: How many characters a text may have that is tokenized at once.
        options: What to do beyond the limit.
    """

    library: GuardedLibrary
    long_texts: LongTextEncoder
    max_length: int
    unsliced_chars: int
    options: TokenizeOptions
    _first: tuple[str, Encoding] | None = None

    def encode(self, pair: Pair, index: int) -> Encoded:
        """Tokenize two texts as one input; where they are too long, the longer text loses its end first.

        Raises:
            CancelledError: Nobody waits any more.
            DeadlineError: The deadline passed.
            InputTooLongError: They are too long and truncation is off; names the index.
            InputError: The limit leaves no room for a token of each.
        """
        options, max_length = self.options, self.max_length
        options.check_going_on()
        adds_special = options.adds_special_tokens
        special = self.library.num_special_tokens_to_add(is_pair=True) if adds_special else 0
        content_length = max_length - special
        if content_length < 2:  # noqa: PLR2004 - a token of each text
            raise InputError(f"{max_length} tokens leave no room for a pair", param="max_tokens")
        first, second = self._read(pair, content_length, index)
        if options.max_second_tokens is not None:
            second = second.limited(options.max_second_tokens)
        is_whole = first.is_whole and second.is_whole
        excess = first.tokens + second.tokens - content_length
        options.check_length(max_length + excess, max_length, index, is_lower_bound=not is_whole)
        whole = self.library.post_process(first.encoding, second.encoding, adds_special)
        kept = (first.tokens, second.tokens)
        if excess > 0:
            kept = longest_first(*kept, content_length)
        ids, type_ids = whole.ids, whole.type_ids
        if sum(kept) < len(first.encoding) + len(second.encoding):
            cuts_start = options.truncate is Truncation.START
            ids, type_ids = cut_pair(whole, (first, second), kept, from_end=cuts_start)
        options.note_tokens(len(ids))
        return Encoded(
            np.asarray(ids, np.int32),
            is_truncated=excess > 0,
            second_start=type_ids.index(1) if 1 in type_ids else 0,
            dropped_tokens=max(0, excess),
            drops_more=not is_whole,
        )

    def _read(self, pair: Pair, content_length: int, index: int) -> tuple[ReadText, ReadText]:
        """Tokenize both texts, as far as need be."""
        texts = (pair.first, pair.second)
        if max(map(len, texts)) > self.unsliced_chars:
            return self.long_texts.encode_pair(pair, content_length, self.options, index)
        encodings: Sequence[Encoding]
        if self._first is not None and self._first[0] is pair.first:
            (second,) = self.library.encode_batch([pair.second], add_special_tokens=False)
            encodings = (self._first[1], second)
        else:
            encodings = self.library.encode_batch(texts, add_special_tokens=False)
        self._first = (pair.first, encodings[0])
        first_read, second_read = [
            ReadText(each, len(each), len(text), is_whole=True)
            for each, text in zip(encodings, texts, strict=True)
        ]
        return first_read, second_read
