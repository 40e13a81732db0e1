"""What a tokenizer makes of texts, told to people: each token with its place, and how well words are covered."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
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


def describe_tokens(
    tokenizer: Tokenizer, text: str, *, adds_special_tokens: bool
) -> list[DescribedToken]:
    """Describe every token of a text; nothing is truncated."""
    encoding = tokenizer.library.encode(text, add_special_tokens=adds_special_tokens)
    tokens = zip(
        encoding.ids,
        encoding.tokens,
        encoding.special_tokens_mask,
        encoding.offsets,
        strict=True,
    )
    return [
        DescribedToken(number, token, is_special=True, start=None, stop=None)
        if is_special
        else DescribedToken(number, text[start:stop], is_special=False, start=start, stop=stop)
        for number, token, is_special, (start, stop) in tokens
    ]


def decode_inputs(
    tokenizer: Tokenizer, inputs: Sequence[Sequence[int]], *, skips_special_tokens: bool
) -> list[str]:
    """Decode the token ids of each input.

    Raises:
        InputError: An id is outside the vocabulary; names the input.
    """
    texts = []
    for index, ids in enumerate(inputs):
        try:
            texts.append(tokenizer.decode(ids, skips_special_tokens=skips_special_tokens))
        except InputError as error:
            error.input_index = index
            raise
    return texts


def count_unusual(tokenizer: Tokenizer, inputs: Sequence[Sequence[int]]) -> int:
    """Count the arrays of ids that the tokenizer would not have made of their text, of the first 32,768 ids."""
    unusual = checked = 0
    for ids in inputs:
        checked += len(ids)
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
        token_spans = {
            (stop - len(text[start:stop].lstrip()), stop)
            for (start, stop), unknown in zip(encoding.offsets, is_unknown, strict=True)
            if not unknown
        }
        words = [match.span() for match in WORD.finditer(text)]
        whole_words = sum(word in token_spans for word in words)
        counts.append(TokenCounts(encoding.ids, len(words), whole_words, sum(is_unknown)))
    return counts
