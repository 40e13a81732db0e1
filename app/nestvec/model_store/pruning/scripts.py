"""Which letters a language is written in, and which letters a token has."""

import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Final

from nestvec.errors import FormatError

LATIN: Final = "LATIN"
CHINESE: Final = "CJK"
# Scripts by language (ISO 639-1), as the names of Unicode's characters begin; those not here are written in Latin.
SCRIPTS: Final = {
    **dict.fromkeys(("be", "bg", "kk", "ky", "mk", "mn", "ru", "sr", "tg", "uk"), ("CYRILLIC",)),
    **dict.fromkeys(("ar", "fa", "ps", "sd", "ug", "ur"), ("ARABIC",)),
    **dict.fromkeys(("he", "yi"), ("HEBREW",)),
    **dict.fromkeys(("hi", "mr", "ne", "sa"), ("DEVANAGARI",)),
    **dict.fromkeys(("as", "bn"), ("BENGALI",)),
    **dict.fromkeys(("am", "ti"), ("ETHIOPIC",)),
    "el": ("GREEK",),
    "gu": ("GUJARATI",),
    "hy": ("ARMENIAN",),
    "ja": (CHINESE, "HIRAGANA", "KATAKANA"),
    "ka": ("GEORGIAN",),
    "km": ("KHMER",),
    "kn": ("KANNADA",),
    "ko": ("HANGUL",),
    "lo": ("LAO",),
    "ml": ("MALAYALAM",),
    "my": ("MYANMAR",),
    "or": ("ORIYA",),
    "pa": ("GURMUKHI",),
    "si": ("SINHALA",),
    "ta": ("TAMIL",),
    "te": ("TELUGU",),
    "th": ("THAI",),
    "zh": (CHINESE, "BOPOMOFO"),
}
IN_LATIN: Final = (
    *(
        "af",
        "az",
        "bs",
        "ca",
        "cs",
        "cy",
        "da",
        "de",
        "en",
        "eo",
        "es",
        "et",
        "eu",
        "fi",
        "fr",
        "ga",
    ),
    *(
        "gl",
        "hr",
        "ht",
        "hu",
        "id",
        "is",
        "it",
        "jv",
        "la",
        "lb",
        "lt",
        "lv",
        "mg",
        "ms",
        "mt",
        "nb",
    ),
    *(
        "nl",
        "nn",
        "no",
        "pl",
        "pt",
        "ro",
        "sk",
        "sl",
        "so",
        "sq",
        "su",
        "sv",
        "sw",
        "tl",
        "tr",
        "uz",
    ),
    *("vi", "xh", "yo", "zu"),
)


def scripts_of_language(tag: str) -> frozenset[str]:
    """Return the scripts of a language.

    Raises:
        FormatError: It is not known.
    """
    language = tag.partition("-")[0].lower()
    if language in IN_LATIN:
        return frozenset({LATIN})
    if language not in SCRIPTS:
        known = ", ".join(sorted((*IN_LATIN, *SCRIPTS)))
        raise FormatError(f"language '{tag[:20]}' is not known; known: {known}; or give a corpus")
    return frozenset(SCRIPTS[language])


def letter_scripts(text: str) -> frozenset[str]:
    """Return the scripts of a text's letters; those of other characters do not count."""
    return frozenset(script for script in map(_script, text) if script)


@lru_cache(maxsize=1 << 16)
def _script(character: str) -> str:
    """Return a letter's script, as its name begins; "" for what is no letter."""
    if not character.isalpha():
        return ""
    return unicodedata.name(character, "").partition(" ")[0]


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
