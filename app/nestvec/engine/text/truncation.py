"""Where texts and pairs are cut before and after they are tokenized. Pure."""

from nestvec.engine.text.slicing import last_safe_cut


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
    """The whole words in the first `chars` characters; the whole text if it is little longer or cannot be cut there."""
    if len(text) < 1.5 * chars:
        return text
    end = last_safe_cut(text, chars)
    return text if end is None else text[:end]


def lengths_tell_order(first: int, second: int, max_tokens: int) -> bool:
    """Whether `longest_first` gives the same for all greater numbers, so that texts need not be counted to their ends.

    Where both are beyond `max_tokens` each has half of it; an odd token goes to the longer text.
    """
    return max_tokens % 2 == 0 or min(first, second) <= max_tokens
