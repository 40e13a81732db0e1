"""Sentences of a text, in some 240 languages.

Source: Wikimedia's sentencex (pragmatic rules).
"""

import itertools
from typing import Final

from nestvec.engine.splitting.spans import Check, Span, go_on

# Text that sentences are looked for in at a time. A longer sentence is cut, and is longer than most models' windows
# anyway.
PIECE_CHARS: Final = 2000
# Sentence ends that close to the end of a piece are found again in the next one.
UNSETTLED_CHARS: Final = 40
LINE_ENDS: Final = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
# The last white space of Unicode: looking at all of its characters would take each start 60 ms.
LAST_SPACE: Final = 0x3000
PLAIN: Final = {
    code: "\n" if chr(code) in LINE_ENDS else " "
    for code in range(LAST_SPACE + 1)
    if chr(code).isspace()
}


def sentences(text: str, language: str = "en", check: Check = go_on) -> list[Span]:
    """Cut a text into sentences, each with the white space behind it; together they are the text.

    The library is given a piece at a time, and the sentence it finds last in one stands at the head of the next: in
    some scripts its time grows with the square of what it is given (1.0.32: ten minutes for a megabyte of Chinese).

    Args:
        text: The text.
        language: ISO code of its language.
        check: Called before each piece; what it raises ends the work.
    """
    plain = _plain_spaces(text)
    edges = [0]
    while edges[-1] < len(text):
        check()
        start = edges[-1]
        stop = min(start + PIECE_CHARS, len(text))
        ends = [start + end for end in _sentence_ends(plain[start:stop], language)]
        if stop == len(text):
            ends = sorted({*ends, stop})
        else:  # near its end a piece does not show what comes next, which may join two sentences
            ends = [end for end in ends if end <= stop - UNSETTLED_CHARS] or [stop]
        edges += ends
    return list(itertools.pairwise(edges))


def _sentence_ends(text: str, language: str) -> list[int]:
    """Where sentences of a piece end, rising."""
    import sentencex  # loads its tables: only for the few calls that need them

    try:
        boundaries = sentencex.get_sentence_boundaries(language, text)
    except BaseException as error:
        # A panic of the library's (in Rust) is no Exception; without sentences the text is one.
        if type(error).__name__ != "PanicException":
            raise
        return []
    ends = {int(boundary["end_index"]) for boundary in boundaries}
    return sorted(end for end in ends if 0 < end <= len(text))


def _plain_spaces(text: str) -> str:
    """The text with spaces and line feeds for all other white space, character for character.

    sentencex 1.0.32 panics on wide spaces behind initials, and takes CR LF for two line ends.
    """
    return text.replace("\r\n", " \n").translate(PLAIN)
