"""Texts to token ids with the `tokenizers` library, and exact truncation.

The library's own truncation is state of the shared tokenizer object, while each call may want another; so it
is switched off and ids are cut here, around the special tokens, with the same result.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as LibraryTokenizer

from app.engine.types import IdArray, Truncation
from app.errors import FormatError, InputError, InputTooLongError

# No tokenizer in use makes one token of more characters than this on average, so a longer text is too long
# for certain, or may be cut before tokenising: 10 MB otherwise costs seconds (TEI has the same factor).
MAX_CHARS_PER_TOKEN: Final = 250

# Where the end of a long text is to be cut off, its leading part is tokenised alone: texts of several times the limit
# are common in ingestion, and tokenising all of one costs a tenth of its int8 forward pass. So many characters a token
# are taken; a text that has fewer tokens in them is tokenised whole.
LEADING_CHARS_PER_TOKEN: Final = 6
# The last tokens of a part need not be those of the whole: an added token may span the cut.
UNSETTLED_TOKENS: Final = 16
LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Encoded:
    """One input as the model will see it.

    Attributes:
        ids: (n,), int32, special tokens included.
        is_truncated: Whether tokens were cut off.
        skip_tokens: Leading tokens that belong to a prompt.
    """

    ids: IdArray
    is_truncated: bool
    skip_tokens: int = 0


class Tokenizer:
    """A model's tokenizer; safe to call from several threads, since nothing in it changes.

    Args:
        path: The folder's `tokenizer.json`.
        max_tokens: The most tokens an input may have, special tokens included.
        vocabulary_size: Rows of the model's embedding table; ids must be below.

    Raises:
        FormatError: The file is missing or cannot be read.
    """

    def __init__(self, path: Path, *, max_tokens: int, vocabulary_size: int) -> None:
        try:
            library = LibraryTokenizer.from_file(str(path))
        except Exception as error:
            # The library raises bare Exception for whatever is wrong with the file.
            raise FormatError(f"{path}: not a readable tokenizer.json ({error})") from error
        library.no_padding()
        library.no_truncation()
        self._library = library
        self._is_wordwise = _is_wordwise(library)
        self.max_tokens = max_tokens
        self.vocabulary_size = vocabulary_size
        highest = library.get_vocab_size(with_added_tokens=True)
        if highest > vocabulary_size:
            raise FormatError(
                f"{path}: the tokenizer has {highest} tokens but the model only {vocabulary_size} embeddings"
            )
        mask = library.encode("a").special_tokens_mask
        content = [i for i, is_special in enumerate(mask) if not is_special]
        self._lead = content[0] if content else len(mask)
        self._tail = len(mask) - 1 - content[-1] if content else 0
        if max_tokens <= self._lead + self._tail:
            raise FormatError(
                f"{path}: {max_tokens} tokens leave no room beside {self._lead + self._tail} special ones"
            )

    def encode_texts(
        self, texts: Sequence[str], *, truncate: Truncation, prefix: str = ""
    ) -> list[Encoded]:
        """Tokenise texts.

        Args:
            texts: Any Unicode but lone surrogates; an empty one gives the special tokens only.
            truncate: What to do beyond `max_tokens`.
            prefix: A prompt put before each text.

        Raises:
            InputTooLongError: An input is too long and `truncate` is ERROR; names its index and length.
        """
        most_chars = MAX_CHARS_PER_TOKEN * self.max_tokens
        prepared = [_cut_chars(prefix + text, most_chars, truncate) for text in texts]
        if truncate is Truncation.END and self._is_wordwise:
            found = self._encode_leading(prepared)
        else:
            found = self._library.encode_batch_fast(prepared)
        return [
            self._fit(
                np.asarray(encoding.ids, np.int32),
                truncate=truncate,
                index=index,
                is_lower_bound=len(prefix) + len(texts[index]) > most_chars,
            )
            for index, encoding in enumerate(found)
        ]

    def check_ids(self, inputs: Sequence[Sequence[int]], *, truncate: Truncation) -> list[Encoded]:
        """Take ids of the model's own vocabulary exactly as given.

        Raises:
            InputError: An id is outside the vocabulary, or an input is empty.
            InputTooLongError: As for texts.
        """
        checked = []
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
            checked.append(self._fit(np.asarray(ids, np.int32), truncate=truncate, index=index))
        return checked

    def count_prompt_tokens(self, prompt: str) -> int:
        """Leading tokens of an input that a prompt accounts for, leading special tokens included."""
        return len(self._library.encode(prompt).ids) - self._tail

    def _encode_leading(self, texts: Sequence[str]) -> list[Encoding]:
        """At least the first `max_tokens` of each text, without tokenising much beyond them."""
        least = self.max_tokens + UNSETTLED_TOKENS
        parts = [_leading_words(text, LEADING_CHARS_PER_TOKEN * least) for text in texts]
        found: list[Encoding] = self._library.encode_batch_fast(parts)
        dense = [
            index
            for index, encoding in enumerate(found)
            if len(parts[index]) < len(texts[index]) and len(encoding) < least
        ]
        if dense:
            whole = self._library.encode_batch_fast([texts[index] for index in dense])
            for index, encoding in zip(dense, whole, strict=True):
                found[index] = encoding
        return found

    def _fit(
        self, ids: IdArray, *, truncate: Truncation, index: int, is_lower_bound: bool = False
    ) -> Encoded:
        """Cut ids to `max_tokens`, keeping the special tokens at both ends."""
        over = len(ids) - self.max_tokens
        if truncate is Truncation.ERROR and (over > 0 or is_lower_bound):
            raise InputTooLongError(
                got_tokens=max(len(ids), self.max_tokens + 1),
                limit_tokens=self.max_tokens,
                input_index=index,
                is_lower_bound=is_lower_bound,
            )
        if over <= 0:
            return Encoded(ids, is_truncated=is_lower_bound)
        stop = len(ids) - self._tail
        kept = (
            ids[self._lead + over : stop]
            if truncate is Truncation.START
            else ids[self._lead : stop - over]
        )
        return Encoded(np.concatenate([ids[: self._lead], kept, ids[stop:]]), is_truncated=True)


def replace_lone_surrogates(text: str) -> str:
    """Text with U+FFFD in place of lone surrogates, which JSON can spell and no tokenizer or file can take."""
    return LONE_SURROGATE.sub("\ufffd", text)


def _is_wordwise(library: LibraryTokenizer) -> bool:
    """Whether text is cut at spaces before it is tokenised, so that words behind one change no token before it."""
    if library.pre_tokenizer is None:
        return False
    words = ["one", "two", "three"]
    text = " ".join(words)
    if library.normalizer is not None:
        text = library.normalizer.normalize_str(text)
    return len(library.pre_tokenizer.pre_tokenize_str(text)) >= len(words)


def _leading_words(text: str, chars: int) -> str:
    """The words in the first so many characters; all of a text that is little longer, or has no space there."""
    if len(text) < 1.5 * chars:
        return text
    end = text.rfind(" ", 0, chars)
    return text[:end] if end > 0 else text


def _cut_chars(text: str, most: int, truncate: Truncation) -> str:
    """Keep the end that truncation would keep; with truncation off one part suffices to prove the excess."""
    if len(text) <= most:
        return text
    return text[-most:] if truncate is Truncation.START else text[:most]
