"""Where texts and pairs are cut before and after they are tokenised. Pure."""

from nestvec.engine.types import Truncation


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
