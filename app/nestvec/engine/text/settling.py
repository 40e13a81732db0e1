"""How a part of a text shows that its first tokens are those of the whole, for each kind of tokenizer.

A byte-pair encoding, a Unigram and a list of words have one property in common: where the whole text has a boundary
between two tokens, the tokens before it are those of the text that ends there (no merge crosses it; a best path's
beginning is the best path to there). No token is longer than the longest of the vocabulary, so one of the last so many
places of a part is such a boundary. If the part's first tokens are the same wherever of these places it ends, they are
the first tokens of the whole. The same holds from the end.

WordPiece has no such property within a word, which its end may make unknown as a whole, but takes words one by one, and
none of more than so many characters: its last word apart, a part's tokens are those of the whole.
"""

from collections.abc import Sequence
from typing import Final

from nestvec.engine.text.tokenizer_library import GuardedLibrary

# For WordPiece: a part that is shorter by so many characters shows a change that reaches further than its last word.
NUDGES: Final = (1, 37)


def nudges_of(library: GuardedLibrary, margin_tokens: int) -> Sequence[int] | None:
    """By how many characters a part is shortened, to see that its tokens do not depend on where it ends.

    Args:
        library: The tokenizer.
        margin_tokens: How many tokens a part has beyond those that are wanted.

    Returns:
        The numbers of characters; None where no part shows anything, so that a text is tokenized whole.
    """
    max_word_chars = library.max_word_chars()
    if max_word_chars is None:
        return range(1, library.max_token_chars() + 1)
    return NUDGES if max_word_chars <= margin_tokens else None
