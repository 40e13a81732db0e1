"""Texts to token ids with the `tokenizers` library, and exact truncation.

The library's own truncation is state of the shared tokenizer object, while each call may want another; so it
is switched off and ids are cut here, around the special tokens, with the same result.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer_library import (
    GuardedLibrary,
    check_vocabulary,
    open_library,
    splits_at_spaces,
    unknown_id_of,
)
from nestvec.engine.text.truncation import cut_chars, leading_words, longest_first
from nestvec.engine.types import IdArray, Pair, Truncation
from nestvec.errors import BackendError, FormatError, InputError

# No tokenizer in use makes one token of more characters than this on average, so a longer text is too long
# for certain, or may be cut before tokenizing: 10 MB otherwise costs seconds (TEI has the same factor).
MAX_CHARS_PER_TOKEN: Final = 250

# Where the end of a long text is to be cut off, its leading part is tokenized alone: texts of several times the limit
# are common in ingestion, and tokenizing all of one costs a tenth of its int8 forward pass. So many characters a token
# are taken; a text that has fewer tokens in them is tokenized whole.
LEADING_CHARS_PER_TOKEN: Final = 6
# The last tokens of a part need not be those of the whole: an added token may span the cut.
UNSETTLED_TOKENS: Final = 16


class Tokenizer:
    """A model's tokenizer; safe to call from several threads, since nothing in it changes.

    Attributes:
        library: The `tokenizers` library's own tokenizer.
        max_tokens: Maximum number of tokens of an input, special tokens included.
        vocabulary_size: Number of rows of the model's embedding table.
        unknown_id: Id that stands for a text without any token; None if there is none.

    Args:
        path: The folder's `tokenizer.json`.
        max_tokens: Maximum number of tokens of an input, special tokens included.
        vocabulary_size: Number of rows of the model's embedding table; ids must be below.
        adds_special_tokens: Whether texts get the file's special tokens; a static model would average them in.
        drops_unknown: Whether unknown tokens are left out of texts that have others.

    Raises:
        FormatError: The file is missing, cannot be read, or does not fit the model.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_tokens: int,
        vocabulary_size: int,
        adds_special_tokens: bool = True,
        drops_unknown: bool = False,
    ) -> None:
        library = open_library(path, adds_special_tokens=adds_special_tokens)
        check_vocabulary(path, library, vocabulary_size, adds_special_tokens=adds_special_tokens)
        self.library = GuardedLibrary(library)
        self.max_tokens = max_tokens
        self.vocabulary_size = vocabulary_size
        self.unknown_id = unknown_id_of(library)
        self._dropped_id = self.unknown_id if drops_unknown else None
        self._splits_at_spaces = splits_at_spaces(library)
        try:
            mask = self.library.encode("a").special_tokens_mask
        except BackendError as error:
            raise FormatError(f"{path}: the tokenizer fails on plain texts") from error
        content = [position for position, is_special in enumerate(mask) if not is_special]
        self._prefix_tokens = content[0] if content else len(mask)
        self._suffix_tokens = len(mask) - 1 - content[-1] if content else 0
        if max_tokens <= self.special_tokens:
            raise FormatError(
                f"{path}: {max_tokens} tokens leave no room beside {self.special_tokens} special ones"
            )

    @property
    def special_tokens(self) -> int:
        """Number of special tokens that each text gets."""
        return self._prefix_tokens + self._suffix_tokens

    def max_length(self, options: TokenizeOptions) -> int:
        """Return the maximum number of tokens of an input: the call's limit or the model's.

        Raises:
            InputError: No token would fit beside the special ones.
        """
        if options.max_tokens is None:
            return self.max_tokens
        min_tokens = (self.special_tokens if options.adds_special_tokens else 0) + 1
        if options.max_tokens < min_tokens:
            raise InputError(
                f"'max_tokens' must be at least {min_tokens}: special tokens count",
                param="max_tokens",
            )
        return min(self.max_tokens, options.max_tokens)

    def encode_texts(self, texts: Sequence[str], options: TokenizeOptions) -> list[Encoded]:
        """Tokenize texts and cut them to the limit.

        Args:
            texts: Any Unicode but lone surrogates; an empty text gives the special tokens only.
            options: What to do beyond the limit, and what stands before and around.

        Raises:
            InputTooLongError: An input is too long and truncation is off; names its index and length.
            InputError: The limit leaves no room for a token, or an input has none.
        """
        max_length = self.max_length(options)
        max_chars = MAX_CHARS_PER_TOKEN * max_length
        prepared = [cut_chars(options.prompt + text, max_chars, options.truncate) for text in texts]
        parts = prepared
        cuts_end = options.truncate is Truncation.END
        if cuts_end and self._splits_at_spaces and self._dropped_id is None:
            encodings, parts = self._encode_leading(prepared, options, max_length)
        else:
            encodings = self._encode(prepared, options)
        return [
            self._cut_ids(
                self._without_dropped(np.asarray(encoding.ids, np.int32)),
                options,
                max_length,
                index,
                is_lower_bound=len(options.prompt) + len(texts[index]) > len(parts[index]),
            )
            for index, encoding in enumerate(encodings)
        ]

    def encode_ids(
        self, inputs: Sequence[Sequence[int]], options: TokenizeOptions
    ) -> list[Encoded]:
        """Take ids of the model's own vocabulary as they are, and cut them to the limit.

        Raises:
            InputError: An id is outside the vocabulary, or an input is empty.
            InputTooLongError: An input is too long and truncation is off; names its index and length.
        """
        max_length = self.max_length(options)
        encoded = []
        for index, ids in enumerate(inputs):
            if not ids:
                raise InputError(
                    "a token array needs at least one id", param="input", input_index=index
                )
            if not (min(ids) >= 0 and max(ids) < self.vocabulary_size):
                raise InputError(
                    f"token ids must be 0 to {self.vocabulary_size - 1}, this model's vocabulary",
                    param="input",
                    input_index=index,
                )
            encoded.append(self._cut_ids(np.asarray(ids, np.int32), options, max_length, index))
        return encoded

    def encode_pair(self, pair: Pair, options: TokenizeOptions, index: int) -> Encoded:
        """Tokenize two texts as one input; where they are too long, the longer text loses its end first.

        Raises:
            InputTooLongError: They are too long and truncation is off; names the index.
            InputError: The limit leaves no room for a token of each.
        """
        max_length = self.max_length(options)
        max_chars = MAX_CHARS_PER_TOKEN * max_length
        texts = [cut_chars(text, max_chars, options.truncate) for text in (pair.first, pair.second)]
        first, second = self.library.encode_batch(texts, add_special_tokens=False)
        if options.max_second_tokens is not None and len(second) > options.max_second_tokens:
            second.truncate(options.max_second_tokens)
        adds_special = options.adds_special_tokens
        special = self.library.num_special_tokens_to_add(is_pair=True) if adds_special else 0
        content_length = max_length - special
        if content_length < 2:  # noqa: PLR2004 - a token of each text
            raise InputError(f"{max_length} tokens leave no room for a pair", param="max_tokens")
        is_cut = max(map(len, (pair.first, pair.second))) > max_chars
        excess = len(first) + len(second) - content_length
        options.check_length(max_length + excess, max_length, index, is_lower_bound=is_cut)
        if excess > 0:
            direction = "left" if options.truncate is Truncation.START else "right"
            kept = longest_first(len(first), len(second), content_length)
            first.truncate(kept[0], direction=direction)
            second.truncate(kept[1], direction=direction)
        whole = self.library.post_process(first, second, adds_special)
        return Encoded(
            np.asarray(whole.ids, np.int32),
            is_truncated=excess > 0 or is_cut,
            second_start=whole.type_ids.index(1) if 1 in whole.type_ids else 0,
        )

    def encode_plain(self, texts: Sequence[str]) -> list[IdArray]:
        """Tokenize texts without special tokens; nothing is cut off."""
        encodings = self.library.encode_batch_fast(texts, add_special_tokens=False)
        return [self._without_dropped(np.asarray(encoding.ids, np.int32)) for encoding in encodings]

    def encode_with_starts(self, text: str) -> tuple[IdArray, NDArray[np.int64]]:
        """Tokenize a text without special tokens; nothing is cut off.

        Returns:
            The ids, (n,), and the index of the character at which each token starts, (n,), which never falls.
        """
        encoding = self.library.encode(text, add_special_tokens=False)
        ids = np.asarray(encoding.ids, np.int32)
        # Parts of one character may be said to start one behind the other's end.
        starts = np.maximum.accumulate(np.array([start for start, _ in encoding.offsets], np.int64))
        kept = np.ones(len(ids), bool) if self._dropped_id is None else ids != self._dropped_id
        return ids[kept], starts[kept]

    def encode_with_stops(
        self, text: str, *, adds_special_tokens: bool
    ) -> tuple[IdArray, list[int | None]]:
        """Tokenize a text; nothing is cut off.

        Returns:
            The ids, (n,), and the index behind the last character of each token; None for special tokens.
        """
        encoding = self.library.encode(text, add_special_tokens=adds_special_tokens)
        tokens = zip(encoding.special_tokens_mask, encoding.offsets, strict=True)
        stops = [None if is_special else stop for is_special, (_, stop) in tokens]
        return np.asarray(encoding.ids, np.int32), stops

    def decode(self, ids: Sequence[int], *, skips_special_tokens: bool = True) -> str:
        """Turn ids back into text.

        Raises:
            InputError: An id is outside the vocabulary.
        """
        if ids and not (min(ids) >= 0 and max(ids) < self.vocabulary_size):
            raise InputError(
                f"token ids must be 0 to {self.vocabulary_size - 1}, this model's vocabulary",
                param="input",
            )
        text: str = self.library.decode(ids, skip_special_tokens=skips_special_tokens)
        return text

    def cut_chars(self, text: str, options: TokenizeOptions) -> str:
        """Return as many characters of a text as could possibly become tokens within the limit."""
        return cut_chars(text, MAX_CHARS_PER_TOKEN * self.max_length(options), options.truncate)

    def special_token_frame(self, options: TokenizeOptions) -> tuple[IdArray, IdArray]:
        """Return the ids of the special tokens before a text, and of those behind it."""
        adds_special = options.adds_special_tokens
        ids = np.asarray(self.library.encode("").ids if adds_special else [], np.int32)
        prefix_tokens = self._prefix_tokens if adds_special else 0
        return ids[:prefix_tokens], ids[prefix_tokens:]

    def count_prompt_tokens(self, prompt: str) -> int:
        """Count the leading tokens of an input that a prompt accounts for, leading special tokens included."""
        return len(self.library.encode(prompt).ids) - self._suffix_tokens

    def _encode_leading(
        self, texts: Sequence[str], options: TokenizeOptions, max_length: int
    ) -> tuple[list[Encoding], list[str]]:
        """At least the first `max_length` tokens of each text, without many beyond; and the parts tokenized."""
        min_tokens = max_length + UNSETTLED_TOKENS
        parts = [leading_words(text, LEADING_CHARS_PER_TOKEN * min_tokens) for text in texts]
        encodings = self._encode(parts, options)
        too_short = [
            index
            for index, encoding in enumerate(encodings)
            if len(parts[index]) < len(texts[index]) and len(encoding) < min_tokens
        ]
        if too_short:
            whole = self._encode([texts[index] for index in too_short], options)
            for index, encoding in zip(too_short, whole, strict=True):
                encodings[index] = encoding
                parts[index] = texts[index]
        return encodings, parts

    def _encode(self, texts: Sequence[str], options: TokenizeOptions) -> list[Encoding]:
        encodings: list[Encoding] = self.library.encode_batch_fast(
            texts, add_special_tokens=options.adds_special_tokens
        )
        return encodings

    def _without_dropped(self, ids: IdArray) -> IdArray:
        """The ids but for those of tokens that are left out."""
        return ids if self._dropped_id is None else ids[ids != self._dropped_id]

    def _cut_ids(
        self,
        ids: IdArray,
        options: TokenizeOptions,
        max_length: int,
        index: int,
        *,
        is_lower_bound: bool = False,
    ) -> Encoded:
        """Cut ids to `max_length`, keeping the special tokens at both ends."""
        excess = len(ids) - max_length
        if not len(ids):
            if self.unknown_id is None:
                raise InputError("this input has no token", param="input", input_index=index)
            return Encoded(np.array([self.unknown_id], np.int32), is_truncated=False)
        options.check_length(len(ids), max_length, index, is_lower_bound=is_lower_bound)
        if excess <= 0:
            return Encoded(ids, is_truncated=is_lower_bound)
        adds_special = options.adds_special_tokens
        start = self._prefix_tokens if adds_special else 0
        stop = len(ids) - (self._suffix_tokens if adds_special else 0)
        cuts_start = options.truncate is Truncation.START
        kept = ids[start + excess : stop] if cuts_start else ids[start : stop - excess]
        return Encoded(
            np.concatenate([ids[:start], kept, ids[stop:]]),
            is_truncated=True,
            dropped_tokens=excess,
            drops_more=is_lower_bound,
        )
