"""Where texts and pairs are cut before and after they are tokenized. Pure."""

from nestvec.engine.types import Truncation


def longest_first(first: int, second: int, max_tokens: int) -> tuple[int, int]:
    """How many tokens of each text of a pair are kept, so that the longer one loses first.

    This is the `tokenizers` library's own rule, reimplemented because the library keeps its truncation as state that
    concurrent calls would share.

    Args:
        first: Number of tokens of the first text.
        second: Number of tokens of the second text.
        max_tokens: Number of tokens that both may have together.
    """
    shorter, longer = sorted((first, second))
    longer = max(shorter, max_tokens - shorter) if shorter <= max_tokens else shorter
    if shorter + longer > max_tokens:
        shorter = max_tokens // 2
        longer = shorter + max_tokens % 2
    return (longer, shorter) if first > second else (shorter, longer)


def leading_words(text: str, chars: int) -> str:
    """The whole words in the first `chars` characters; the whole text if it is little longer or has no space there."""
    if len(text) < 1.5 * chars:
        return text
    end = text.rfind(" ", 0, chars)
    return text[:end] if end > 0 else text


def cut_chars(text: str, max_chars: int, truncate: Truncation) -> str:
    """Keep the end of a text that truncation would keep; with truncation off one part suffices to prove the excess."""
    if len(text) <= max_chars:
        return text
    return text[-max_chars:] if truncate is Truncation.START else text[:max_chars]
