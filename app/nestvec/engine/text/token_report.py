"""What a tokenizer makes of texts, told to people: each token with its place, and how well words are covered."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from typing_extensions import override

from nestvec.engine.splitting import Check, go_on
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.tokenizer_library import token_spans
from nestvec.engine.types import Truncation
from nestvec.errors import BackendError, InputError
from nestvec.system.unicode import replace_lone_surrogates

WORD: Final = re.compile(r"\w+")
FALLBACK_BYTE: Final = re.compile("<0x[0-9A-F]{2}>")

# So many ids of a call are turned into text and back: some 0.2 s in a thread.
MAX_CHECKED_IDS: Final = 32_768


@dataclass(frozen=True, slots=True)
class DescribedToken:
    """One token of a text.

    Attributes:
        id: The token's id.
        text: The part of the text that the token stands for; a special token's own spelling.
        is_special: Whether the tokenizer added it.
        start: Index of the part's first character; None for special tokens.
        stop: Index behind the part's last character; None for special tokens.
    """

    id: int
    text: str
    is_special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """How a text was cut into tokens, special tokens apart.

    Attributes:
        ids: The token ids.
        words: Number of runs of letters and digits.
        whole_words: Number of words that are a single token, and not an unknown one.
        unknown: Number of tokens that stand for what the vocabulary lacks, fallback bytes included.
    """

    ids: Sequence[int]
    words: int
    whole_words: int
    unknown: int


class DescribedText(Sequence[DescribedToken]):
    """The tokens of a text, each described when it is looked at: a text may have a million.

    Args:
        text: The text.
        encoding: Its tokens.
    """

    def __init__(self, text: str, encoding: Encoding) -> None:
        self._text = text
        self._ids = np.asarray(encoding.ids, np.int64)
        self._is_special = np.asarray(encoding.special_tokens_mask, bool)
        self._spans = token_spans(encoding)
        positions = np.flatnonzero(self._is_special).tolist()
        spellings = encoding.tokens if positions else ()
        self._spellings = {position: spellings[position] for position in positions}

    @property
    def ids(self) -> NDArray[np.int64]:
        """The tokens' ids, (n,)."""
        return self._ids

    @property
    def places(self) -> NDArray[np.int64]:
        """Where each token starts and stops in the text, in characters, (n, 2); -1 for special tokens."""
        return np.where(self._is_special[:, None], -1, self._spans)

    @override
    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> DescribedToken: ...
    @overload
    def __getitem__(self, index: slice) -> list[DescribedToken]: ...
    @override
    def __getitem__(self, index: int | slice) -> DescribedToken | list[DescribedToken]:
        """Describe a token, or several."""
        if isinstance(index, slice):
            return self._described(*index.indices(len(self)))
        position = range(len(self))[index]
        return self._described(position, position + 1, 1)[0]

    def _described(self, start: int, stop: int, step: int) -> list[DescribedToken]:
        """Describe a range of tokens; its numbers leave numpy together, which is most of the work one by one."""
        text, spellings = self._text, self._spellings
        chosen = slice(start, stop if stop >= 0 else None, step)
        columns = (
            range(start, stop, step),
            self._ids[chosen].tolist(),
            self._is_special[chosen].tolist(),
            self._spans[chosen].tolist(),
        )
        return [
            DescribedToken(number, spellings[position], is_special, None, None)
            if is_special
            else DescribedToken(number, text[first:last], is_special, first, last)
            for position, number, is_special, (first, last) in zip(*columns, strict=True)
        ]


def describe_tokens(tokenizer: Tokenizer, text: str, *, adds_special_tokens: bool) -> DescribedText:
    """Describe every token of a text; nothing is truncated."""
    encoding = tokenizer.library.encode(text, add_special_tokens=adds_special_tokens)
    return DescribedText(text, encoding)


def decode_inputs(
    tokenizer: Tokenizer,
    inputs: Sequence[Sequence[int]],
    *,
    skips_special_tokens: bool,
    check: Check = go_on,
) -> list[str]:
    """Decode the token ids of each input.

    Args:
        tokenizer: The model's tokenizer.
        inputs: The ids.
        skips_special_tokens: Whether special tokens are left out.
        check: Called before each input; what it raises ends the work.

    Raises:
        InputError: An id is outside the vocabulary; names the input.
    """
    texts = []
    for index, ids in enumerate(inputs):
        check()
        try:
            texts.append(tokenizer.decode(ids, skips_special_tokens=skips_special_tokens))
        except InputError as error:
            error.input_index = index
            raise
    return texts


def count_unusual(
    tokenizer: Tokenizer, inputs: Sequence[Sequence[int]], check: Check = go_on
) -> int:
    """Count the arrays of ids that the tokenizer would not have made of their text, of the first 32,768 ids.

    Args:
        tokenizer: The model's tokenizer.
        inputs: The ids.
        check: Called before each input; what it raises ends the work.
    """
    unusual = checked = 0
    for ids in inputs:
        checked += len(ids)
        check()
        if checked > MAX_CHECKED_IDS:
            break
        unusual += is_unusual(tokenizer, ids)
    return unusual


def is_unusual(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Return whether a tokenizer would make other ids of the text of these, special tokens around it included.

    Where the text is not known (there are unknown tokens, or nothing decodes), the special tokens are looked at alone.
    Ids beyond the model's limit are not looked at: they are refused or cut, and the answer says so.

    Args:
        tokenizer: The model's tokenizer.
        ids: At least one id of the model's vocabulary.
    """
    if len(ids) > tokenizer.max_tokens:
        return False
    try:
        text = None if tokenizer.unknown_id in ids else tokenizer.library.decode_plainly(ids)
        if text is not None:
            again: list[int] = tokenizer.library.encode(text).ids
            return list(ids) != again
    except BackendError:
        return True
    before, behind = (
        part.tolist() for part in tokenizer.special_token_frame(TokenizeOptions(Truncation.ERROR))
    )
    starts, ends = list(ids[: len(before)]), list(ids[len(ids) - len(behind) :])
    has_frame: bool = (starts, ends) == (before, behind)
    return not has_frame


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenCounts]:
    """Count the tokens and words of each text; nothing is truncated."""
    known = [replace_lone_surrogates(text) for text in texts]
    encodings = tokenizer.library.encode_batch(known, add_special_tokens=False)
    counts = []
    for text, encoding in zip(known, encodings, strict=True):
        is_unknown = [
            number == tokenizer.unknown_id or FALLBACK_BYTE.fullmatch(token) is not None
            for number, token in zip(encoding.ids, encoding.tokens, strict=True)
        ]
        # Some tokenizers hold the space before a word in its first token.
        spans = {
            (stop - len(text[start:stop].lstrip()), stop)
            for (start, stop), unknown in zip(
                token_spans(encoding).tolist(), is_unknown, strict=True
            )
            if not unknown
        }
        words = [match.span() for match in WORD.finditer(text)]
        whole_words = sum(word in spans for word in words)
        counts.append(TokenCounts(encoding.ids, len(words), whole_words, sum(is_unknown)))
    return counts
