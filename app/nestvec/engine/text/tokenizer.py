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
from nestvec.engine.text.long_texts import Goal, LongTextEncoder, ReadText, cut_pair, goal_of
from nestvec.engine.text.slicing import SafeCuts, find_safe_cuts
from nestvec.engine.text.tokenizer_changes import NO_CHANGES, TokenizerChanges
from nestvec.engine.text.tokenizer_library import (
    GuardedLibrary,
    check_vocabulary,
    open_library,
    splits_at_spaces,
    unknown_id_of,
)
from nestvec.engine.text.truncation import leading_words, longest_first
from nestvec.engine.types import IdArray, Pair, Truncation
from nestvec.errors import BackendError, FormatError, InputError

# A text of more characters a token than this is tokenized in slices, no further than need be: so long a text costs
# seconds. Up to here the tokens beyond a limit are counted, too. (TEI refuses what is longer, but characters are no
# measure of tokens: blanks have none.)
COUNTED_CHARS_PER_TOKEN: Final = 250
# Where a text can be cut safely, one of more characters than this is tokenized in slices anyway.
UNSLICED_CHARS: Final = 150_000

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
        changes: What the files beside the tokenizer.json make other.

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
        changes: TokenizerChanges = NO_CHANGES,
    ) -> None:
        library = open_library(path, adds_special_tokens=adds_special_tokens, changes=changes)
        check_vocabulary(path, library, vocabulary_size, adds_special_tokens=adds_special_tokens)
        self.library = GuardedLibrary(library)
        self.max_tokens = max_tokens
        self.vocabulary_size = vocabulary_size
        self.unknown_id = unknown_id_of(library)
        self._dropped_id = self.unknown_id if drops_unknown else None
        self._splits_at_spaces = splits_at_spaces(library)
        try:
            mask = self.library.encode("a").special_tokens_mask
            self._cuts = find_safe_cuts(
                lambda text: self.library.encode(text, add_special_tokens=False).ids,
                splits_at_spaces=self._splits_at_spaces,
            )
        except BackendError as error:
            raise FormatError(f"{path}: the tokenizer fails on plain texts") from error
        self._long_texts = LongTextEncoder(self.library, self._cuts, self._dropped_id)
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
        whole = [options.prompt + text for text in texts] if options.prompt else texts
        unsliced_chars = self._unsliced_chars(max_length)
        if max(map(len, whole), default=0) <= unsliced_chars:
            return self._encode_short(whole, options, max_length)
        encoded = []
        for index, text in enumerate(whole):
            try:
                if len(text) <= unsliced_chars:
                    encoded += self._encode_short([text], options, max_length)
                else:
                    encoded.append(self._encode_long(text, options, max_length))
            except (InputError, BackendError) as error:
                error.input_index = index
                raise
        return encoded

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
        adds_special = options.adds_special_tokens
        special = self.library.num_special_tokens_to_add(is_pair=True) if adds_special else 0
        content_length = max_length - special
        if content_length < 2:  # noqa: PLR2004 - a token of each text
            raise InputError(f"{max_length} tokens leave no room for a pair", param="max_tokens")
        if max(len(pair.first), len(pair.second)) <= self._unsliced_chars(max_length):
            texts = [pair.first, pair.second]
            encodings = self.library.encode_batch(texts, add_special_tokens=False)
            first, second = [
                ReadText(each, len(each), len(text), is_whole=True)
                for each, text in zip(encodings, texts, strict=True)
            ]
        else:
            first, second = self._long_texts.encode_pair(pair, content_length, options, index)
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
        return Encoded(
            np.asarray(ids, np.int32),
            is_truncated=excess > 0,
            second_start=type_ids.index(1) if 1 in type_ids else 0,
            dropped_tokens=max(0, excess),
            drops_more=not is_whole,
        )

    def encode_plain(self, texts: Sequence[str], options: TokenizeOptions) -> list[IdArray]:
        """Tokenize texts without special tokens; nothing is cut off.

        Raises:
            RequestTooLargeError: A text has more characters than are read.
            DeadlineError: The deadline passed before long texts were tokenized.
        """
        if max(map(len, texts), default=0) <= UNSLICED_CHARS:
            encodings = self.library.encode_batch_fast(texts, add_special_tokens=False)
        else:
            encodings = [
                self._long_texts.encode(text, Goal(None), options, index).encoding
                for index, text in enumerate(texts)
            ]
        return [self._without_dropped(np.asarray(encoding.ids, np.int32)) for encoding in encodings]

    def encode_with_starts(self, text: str) -> tuple[IdArray, NDArray[np.int64]]:
        """Tokenize a text without special tokens; nothing is cut off.

        Returns:
            The ids, (n,), and the index of the character at which each token starts, (n,), which never falls.
        """
        (encoding,) = self.library.encode_batch([text], add_special_tokens=False)
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

    def enough_chars(self, text: str, options: TokenizeOptions, index: int) -> str:
        """Return as much of a text as has more tokens than the limit; all of it, if it has no more.

        Raises:
            RequestTooLargeError: More of the text would have to be read than is.
            DeadlineError: The deadline passed before that was told.
        """
        max_length = self.max_length(options)
        if len(text) <= self._unsliced_chars(max_length):
            return text
        goal = goal_of(options, max_length, 0)
        read = self._long_texts.encode(text, goal, options, index)
        return text[-read.chars :] if goal.from_end else text[: read.chars]

    def special_token_frame(self, options: TokenizeOptions) -> tuple[IdArray, IdArray]:
        """Return the ids of the special tokens before a text, and of those behind it."""
        adds_special = options.adds_special_tokens
        ids = np.asarray(self.library.encode("").ids if adds_special else [], np.int32)
        prefix_tokens = self._prefix_tokens if adds_special else 0
        return ids[:prefix_tokens], ids[prefix_tokens:]

    def count_prompt_tokens(self, prompt: str) -> int:
        """Count the leading tokens of an input that a prompt accounts for, leading special tokens included."""
        return len(self.library.encode(prompt).ids) - self._suffix_tokens

    def _unsliced_chars(self, max_length: int) -> int:
        """How many characters a text may have that is tokenized at once."""
        counted = COUNTED_CHARS_PER_TOKEN * max_length
        return counted if self._cuts is SafeCuts.NOWHERE else min(counted, UNSLICED_CHARS)

    def _encode_long(self, text: str, options: TokenizeOptions, max_length: int) -> Encoded:
        """Tokenize a text in slices, and cut it to the limit."""
        special = self.special_tokens if options.adds_special_tokens else 0
        goal = goal_of(options, max_length - special, COUNTED_CHARS_PER_TOKEN * max_length)
        read = self._long_texts.encode(text, goal, options, 0)
        content = np.asarray(read.encoding.ids, np.int32)[read.start : read.start + read.tokens]
        prefix_ids, suffix_ids = self.special_token_frame(options)
        ids = self._without_dropped(np.concatenate([prefix_ids, content, suffix_ids]))
        return self._cut_ids(ids, options, max_length, 0, is_lower_bound=not read.is_whole)

    def _encode_short(
        self, texts: Sequence[str], options: TokenizeOptions, max_length: int
    ) -> list[Encoded]:
        """Tokenize texts, or as much of each as it takes, and cut them to the limit."""
        parts = texts
        cuts_end = options.truncate is Truncation.END
        if cuts_end and self._splits_at_spaces and self._dropped_id is None:
            encodings, parts = self._encode_leading(texts, options, max_length)
        else:
            encodings = self._encode(texts, options)
        return [
            self._cut_ids(
                self._without_dropped(np.asarray(encoding.ids, np.int32)),
                options,
                max_length,
                index,
                is_lower_bound=len(texts[index]) > len(parts[index]),
            )
            for index, encoding in enumerate(encodings)
        ]

    def _encode_leading(
        self, texts: Sequence[str], options: TokenizeOptions, max_length: int
    ) -> tuple[list[Encoding], Sequence[str]]:
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
            return Encoded(ids, is_truncated=False)
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
