"""Small changes of texts, as typists, keyboards and forgers make them: each of a share of the places it could be made.

Every change keeps what a reader sees, or nearly so. Pure: the same seed gives the same text.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

WORD: Final = re.compile(r"\w+")
ZERO_WIDTH: Final = "\u200b"
# Cyrillic and Greek letters that look like Latin ones in most fonts (Unicode's confusables.txt has them all).
HOMOGLYPHS: Final[Mapping[str, str]] = dict(
    zip("aceijopsxyABCEHIKMOPTXYZ", "асеіјорѕхуАВСЕНІКМОРТХΥΖ", strict=True)
)
LOOK_ALIKES: Final = frozenset(HOMOGLYPHS.values())
INVISIBLE: Final = re.compile("[\u200b\u2060\u00ad\ufeff\u180e]")
LATIN: Final = "LATIN"

Change = Callable[[str, float, np.random.Generator], str]


def swap_letters(text: str, share: float, random: np.random.Generator) -> str:
    """Exchange a share of the inner letters of words with the letter behind, as fast typing does."""
    letters = list(text)
    for match in WORD.finditer(text):
        place = match.start() + 1
        while place < match.end() - 2:
            if random.random() < share:
                letters[place], letters[place + 1] = letters[place + 1], letters[place]
                place += 1
            place += 1
    return "".join(letters)


def swap_case(text: str, share: float, random: np.random.Generator) -> str:
    """Turn a share of the letters from lower to upper case, or back."""
    return _each(text, share, random, str.isalpha, str.swapcase)


def insert_invisible(text: str, share: float, random: np.random.Generator) -> str:
    """Put an invisible character behind a share of the letters."""
    return _each(text, share, random, str.isalpha, lambda letter: letter + ZERO_WIDTH)


def replace_by_look_alikes(text: str, share: float, random: np.random.Generator) -> str:
    """Replace a share of the letters that have one by a look-alike of another script."""
    return _each(text, share, random, HOMOGLYPHS.__contains__, HOMOGLYPHS.__getitem__)


CHANGES: Final[Mapping[str, Change]] = {
    "letters swapped": swap_letters,
    "case": swap_case,
    "invisible characters": insert_invisible,
    "look-alike letters": replace_by_look_alikes,
}


def changed(texts: Sequence[str], change: Change, share: float, seed: int) -> list[str]:
    """Return texts with a change in a share of the places of each; the same for the same seed."""
    return [
        change(text, share, np.random.default_rng((seed, number)))
        for number, text in enumerate(texts)
    ]


def has_look_alikes(text: str) -> bool:
    """Whether a word mixes Latin letters with look-alikes of another script, as no language does."""
    for match in WORD.finditer(text):
        word = match[0]
        if LOOK_ALIKES.isdisjoint(word):
            continue
        if any(unicodedata.name(letter, "").startswith(LATIN) for letter in word):
            return True
    return False


def has_invisible(text: str) -> bool:
    """Whether a text holds characters that nobody sees."""
    return INVISIBLE.search(text) is not None


def _each(
    text: str,
    share: float,
    random: np.random.Generator,
    is_place: Callable[[str], bool],
    replace: Callable[[str], str],
) -> str:
    return "".join(
        replace(letter) if is_place(letter) and random.random() < share else letter
        for letter in text
    )
