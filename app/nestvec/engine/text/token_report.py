"""What a tokenizer makes of texts, told to people: each token with its place, and how well words are covered."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.errors import InputError
from nestvec.system.unicode import replace_lone_surrogates

WORD: Final = re.compile(r"\w+")
FALLBACK_BYTE: Final = re.compile("<0x[0-9A-F]{2}>")


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
