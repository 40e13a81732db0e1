"""Which letters a language is written in, and which letters a token has."""

from collections.abc import Iterable
from functools import cache
from typing import Final

from nestvec.engine.text.preparation.letters import SCRIPTS, name_word
from nestvec.engine.text.preparation.scripts import LANGUAGES, main_scripts
from nestvec.errors import FormatError

LATIN: Final = "latin"
# Languages (ISO 639) that are written in Latin; those in other scripts are the text layer's.
IN_LATIN: Final = (
    "af az bs ca cs cy da de en eo es et eu fi fr ga gl hr ht hu id is it jv la lb lt lv "
    "mg ms mt nb nl nn no pl pt ro sk sl so sq su sv sw tl tr uz vi xh yo zu"
)


def scripts_of_language(tag: str) -> frozenset[str]:
    """Return the scripts of a language, as the names of their letters begin.

    Raises:
        FormatError: It is not known.
    """
    language = tag.partition("-")[0].lower()
    if language in IN_LATIN.split():
        return frozenset({LATIN})
    scripts = main_scripts(language)
    if not scripts:
        others = " ".join(LANGUAGES.values()).split()
        known = ", ".join(sorted({*IN_LATIN.split(), *others}))
        raise FormatError(f"language '{tag[:20]}' is not known; known: {known}; or give a corpus")
    return frozenset(word for script in scripts for word in SCRIPTS[script])


def letter_scripts(text: str) -> frozenset[str]:
    """Return the scripts of a text's letters, as their names begin; those of other characters do not count."""
    return frozenset(word for word in map(name_word, filter(str.isalpha, text)) if word)


@cache
def byte_characters() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for, as GPT-2 chose them.

    Bytes that print stand for themselves; the others, in order, have the characters from U+0100 on.
    """
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    shown = {chr(byte): byte for byte in printed}
    return shown | {chr(256 + number): byte for number, byte in enumerate(others)}


def text_of_bytes(token: str) -> str | None:
    """Return what a token of a byte-level vocabulary spells; None for a part of a character."""
    known = byte_characters()
    try:
        return bytes(known[character] for character in token).decode()
    except (KeyError, UnicodeDecodeError):
        return None


def shown_scripts(scripts: Iterable[str]) -> str:
    """Return scripts for people."""
    return ", ".join(sorted(script.capitalize() for script in scripts)) or "none"
