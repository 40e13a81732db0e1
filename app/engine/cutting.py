"""Where texts and pairs are cut before and after they are tokenised. Pure."""

import re
from typing import Final

from app.engine.types import Truncation

LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def longest_first(first: int, second: int, most: int) -> tuple[int, int]:
    """How many tokens of each of two texts are kept, so that the longer one loses first.

    The `tokenizers` library's own rule, whose truncation is state that calls would share.
    """
    shorter, longer = sorted((first, second))
    longer = max(shorter, most - shorter) if shorter <= most else shorter
    if shorter + longer > most:
        shorter = most // 2
        longer = shorter + most % 2
    return (longer, shorter) if first > second else (shorter, longer)


def replace_lone_surrogates(text: str) -> str:
    """Text with U+FFFD in place of lone surrogates, which JSON can spell and no tokenizer or file can take."""
    return LONE_SURROGATE.sub("\ufffd", text)


def leading_words(text: str, chars: int) -> str:
    """The words in the first so many characters; all of a text that is little longer, or has no space there."""
    if len(text) < 1.5 * chars:
        return text
    end = text.rfind(" ", 0, chars)
    return text[:end] if end > 0 else text


def cut_chars(text: str, most: int, truncate: Truncation) -> str:
    """Keep the end that truncation would keep; with truncation off one part suffices to prove the excess."""
    if len(text) <= most:
        return text
    return text[-most:] if truncate is Truncation.START else text[:most]
