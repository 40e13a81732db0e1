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
from nestvec.engine.text.long_texts import SLICE_CHARS, LongTextEncoder, goal_of
from nestvec.engine.text.pairs import PairEncoder
from nestvec.engine.text.slicing import SafeCuts, find_safe_cuts, input_slices
from nestvec.engine.text.subwords.library import guarded_library
from nestvec.engine.text.tokenizer_changes import NO_CHANGES, TokenizerChanges
from nestvec.engine.text.tokenizer_library import (
    check_vocabulary,
    open_library,
    splits_at_spaces,
    token_spans,
    unknown_id_of,
)
from nestvec.engine.text.truncation import IdCutter, leading_words
from nestvec.engine.types import IdArray, Truncation
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
        long_texts: Tokenizes texts in slices, whole or as far as is wanted.
        told_unknown_id: The same where it tells of what the vocabulary lacks: not where each text gets it (CLIP's).

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
        self.library = guarded_library(library, changes)
        self._counted_chars_a_token = COUNTED_CHARS_PER_TOKEN // self.library.parts_a_char
        self.max_tokens = max_tokens
        self.vocabulary_size = vocabulary_size
        self.unknown_id = unknown_id_of(library)
        self._dropped_id = self.unknown_id if drops_unknown else None
        self._prompt_tokens: dict[str, int] = {}
        self._splits_at_spaces = splits_at_spaces(library)
        try:
            plain = self.library.encode("a")
            self._cuts = find_safe_cuts(
                lambda text: self.library.encode(text, add_special_tokens=False).ids,
                splits_at_spaces=self._splits_at_spaces,
            )
        except BackendError as error:
            raise FormatError(f"{path}: the tokenizer fails on plain texts") from error
        self.long_texts = LongTextEncoder(self.library, self._cuts, self._dropped_id)
        mask = plain.special_tokens_mask
        content = [position for position, is_special in enumerate(mask) if not is_special]
        is_framing = any(self.unknown_id == i and s for i, s in zip(plain.ids, mask, strict=True))
        self.told_unknown_id = None if is_framing else self.unknown_id
        self._cutter = IdCutter(
            content[0] if content else len(mask),
            len(mask) - 1 - content[-1] if content else 0,
            self.unknown_id,
            self._dropped_id,
            changes.padding,
            plain.ids[-1] if changes.ends_at_end_token and mask[-1] else None,
        )
        if max_tokens <= self.special_tokens:
            raise FormatError(
                f"{path}: {max_tokens} tokens leave no room beside {self.special_tokens} special ones"
            )

    @property
    def special_tokens(self) -> int:
        """Number of special tokens that each text gets."""
        return self._cutter.prefix_tokens + self._cutter.suffix_tokens

    @property
    def prefix_tokens(self) -> int:
        """Number of special tokens before each text."""
        return self._cutter.prefix_tokens

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no part of a text: special tokens, and the unknown one."""
        unknown = () if self.unknown_id is None else (self.unknown_id,)
        return self.library.special_ids.union(unknown)

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
        prompt = options.prompt
        size = min(self._unsliced_chars(max_length), SLICE_CHARS)
        if len(prompt) * len(texts) + sum(map(len, texts)) <= size:
            whole = [prompt + text for text in texts] if prompt else texts
            return self._encode_short(whole, options, max_length)
        encoded: list[Encoded] = []
        for start, stop in input_slices(texts, len(prompt), size):
            options.check_going_on()
            whole = [prompt + text for text in texts[start:stop]]
            try:
                encoded += self._encode_slice(whole, options, max_length)
            except (InputError, BackendError) as error:
                error.input_index = start + (error.input_index or 0)
                raise
            options.note_tokens(sum(len(each.ids) for each in encoded[start:]))
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
            options.check_going_on()
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
            encoded.append(self._cutter.cut(np.asarray(ids, np.int32), options, max_length, index))
            options.note_tokens(len(encoded[-1].ids))
        return encoded

    def pair_encoder(self, options: TokenizeOptions) -> PairEncoder:
        """Return what tokenizes the pairs of one call.

        Raises:
            InputError: The limit leaves no room for a token.
        """
        max_length = self.max_length(options)
        unsliced_chars = self._unsliced_chars(max_length)
        return PairEncoder(self.library, self.long_texts, max_length, unsliced_chars, options)

    def encode_plain(self, texts: Sequence[str], options: TokenizeOptions) -> list[IdArray]:
        """Tokenize texts without special tokens; nothing is cut off.

        Raises:
            RequestTooLargeError: A text has more characters than are read.
            DeadlineError: The deadline passed before long texts were tokenized.
        """
        encoded: list[IdArray] = []
        for start, stop in input_slices(texts, 0, min(SLICE_CHARS, UNSLICED_CHARS)):
            options.check_going_on()
            if len(texts[start]) > UNSLICED_CHARS:
                encoded.append(self.long_texts.whole(texts[start], options, start))
            else:
                encodings = self.library.encode_batch_fast(
                    texts[start:stop], add_special_tokens=False
                )
                encoded += [np.asarray(encoding.ids, np.int32) for encoding in encodings]
        return [self._cutter.without_dropped(ids) for ids in encoded]

    def encode_with_starts(
        self, text: str, options: TokenizeOptions, index: int = 0
    ) -> tuple[IdArray, NDArray[np.int64]]:
        """Tokenize a text without special tokens, as `LongTextEncoder.whole_with_starts` does; nothing is cut off."""
        ids, starts = self.long_texts.whole_with_starts(text, options, index)
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
        tokens = zip(
            encoding.special_tokens_mask, token_spans(encoding)[:, 1].tolist(), strict=True
        )
        stops = [None if is_special else stop for is_special, stop in tokens]
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
        read = self.long_texts.encode(text, goal, options, index)
        return text[-read.chars :] if goal.from_end else text[: read.chars]

    def padded(self, ids: IdArray) -> IdArray:
        """Return the ids of an input with the padding that the model reads, where it reads any."""
        return self._cutter.padded(ids)

    def special_token_frame(self, options: TokenizeOptions) -> tuple[IdArray, IdArray]:
        """Return the ids of the special tokens before a text, and of those behind it."""
        adds_special = options.adds_special_tokens
        ids = np.asarray(self.library.encode("").ids if adds_special else [], np.int32)
        prefix_tokens = self._cutter.prefix_tokens if adds_special else 0
        return ids[:prefix_tokens], ids[prefix_tokens:]

    def count_prompt_tokens(self, prompt: str, *, keeps: bool = False) -> int:
        """Count the leading tokens of an input that a prompt accounts for, leading special tokens included.

        Args:
            prompt: The prompt.
            keeps: Whether the count is kept for calls to come: only for prompts that are the model's own.
        """
        known = self._prompt_tokens.get(prompt)
        if known is not None:
            return known
        tokens = len(self.library.encode(prompt).ids) - self._cutter.suffix_tokens
        if keeps:
            self._prompt_tokens[prompt] = tokens
        return tokens

    def check_prompt(self, options: TokenizeOptions) -> None:
        """Refuse a prompt that leaves no room for any text, before it is put before the first one.

        What is a matter of a few tokens is left to the tokens of the whole.

        Raises:
            InputError: It leaves no room, or is longer than is read.
        """
        max_length = self.max_length(options)
        if len(options.prompt) > max_length and options.truncate is not Truncation.START:
            self.long_texts.check_prompt(options, max_length)

    def _unsliced_chars(self, max_length: int) -> int:
        """How many characters a text may have that is tokenized at once."""
        counted = self._counted_chars_a_token * max_length
        return counted if self._cuts is SafeCuts.NOWHERE else min(counted, UNSLICED_CHARS)

    def _encode_slice(
        self, texts: Sequence[str], options: TokenizeOptions, max_length: int
    ) -> list[Encoded]:
        """Tokenize the texts of a slice: several short ones, or one of any length."""
        if len(texts) == 1 and len(texts[0]) > self._unsliced_chars(max_length):
            return [self._encode_long(texts[0], options, max_length)]
        return self._encode_short(texts, options, max_length)

    def _encode_long(self, text: str, options: TokenizeOptions, max_length: int) -> Encoded:
        """Tokenize a text in slices, and cut it to the limit."""
        special = self.special_tokens if options.adds_special_tokens else 0
        goal = goal_of(options, max_length - special, self._counted_chars_a_token * max_length)
        read = self.long_texts.encode(text, goal, options, 0)
        content = np.asarray(read.encoding.ids, np.int32)[read.start : read.start + read.tokens]
        prefix_ids, suffix_ids = self.special_token_frame(options)
        ids = np.concatenate([prefix_ids, content, suffix_ids])
        return self._cutter.encoded(ids, options, max_length, 0, is_lower_bound=not read.is_whole)

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
            self._cutter.encoded(
                np.asarray(encoding.ids, np.int32),
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
