"""Which texts are in a script that a model was not made for, by the languages of its card. Pure.

Source: the scripts that languages are commonly written in, of CLDR's likely subtags. Latin counts as known: every
vocabulary has it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from nestvec.engine.text.preparation.letters import script_of_letter

# Below are Latin letters, with or without marks, and signs.
FIRST_OTHER: Final = "\u0250"
# Of a text so many characters are looked at, and of a call so many: a page tells what a text is in.
TEXT_CHARS: Final = 1000
CALL_CHARS: Final = 16_384
# Scripts by the languages written in them, where that is not Latin.
LANGUAGES: Final = {
    "arabic": "ar arq ary arz azb ckb fa ks ps sd ug ur",
    "armenian": "hy",
    "bengali": "as bn mni",
    "bopomofo": "zh",
    "cyrillic": "ab ba be bg ce cv kk ky mk mn os ru sah sr tg tt tyv udm uk",
    "devanagari": "bho brx doi gom hi kok mai mr ne new sa",
    "ethiopic": "am ti",
    "georgian": "ka xmf",
    "greek": "el grc",
    "gujarati": "gu",
    "gurmukhi": "pa",
    "hangul": "ko",
    "han": "ja lzh wuu yue zh",
    "hebrew": "he yi",
    "hiragana": "ja",
    "katakana": "ja",
    "kannada": "kn",
    "khmer": "km",
    "lao": "lo",
    "malayalam": "ml",
    "myanmar": "my shn",
    "oriya": "or",
    "sinhala": "si",
    "syriac": "syr",
    "tamil": "ta",
    "telugu": "te",
    "thaana": "dv",
    "thai": "th",
    "tibetan": "bo dz",
    "tifinagh": "ber zgh",
}
# Languages written in two scripts as a matter of course.
SECOND_SCRIPTS: Final = {
    "az": "cyrillic arabic",
    "bs": "cyrillic",
    "ha": "arabic",
    "ko": "han",
    "ku": "arabic",
    "mn": "mongolian",
    "pa": "arabic",
    "uz": "cyrillic",
}
# Subtags of scripts (ISO 15924) that are not the script's name shortened to four letters.
TAGGED: Final = {
    "cans": "canadian",
    "cyrl": "cyrillic",
    "grek": "greek",
    "hang": "hangul",
    "hani": "han",
    "hans": "han",
    "hant": "han",
    "hebr": "hebrew",
    "latn": "latin",
    "mymr": "myanmar",
    "orya": "oriya",
}


def foreign_scripts(texts: Iterable[str], languages: Sequence[str]) -> tuple[str, ...]:
    """Return the scripts, sorted, of texts most of whose letters none of the languages is written in.

    Args:
        texts: The texts; the beginning of each is looked at, up to a bound over all.
        languages: BCP-47 tags of the languages that the model was made for; none: nothing is foreign.
    """
    if not languages:
        return ()
    found: set[str] = set()
    left = CALL_CHARS
    for text in texts:
        if text.isascii():
            continue
        start = text[: min(TEXT_CHARS, left)]
        left -= len(start)
        if start and max(start) >= FIRST_OTHER:
            found.update(_foreign(start, scripts_of_languages(tuple(languages))))
        if left <= 0:
            break
    return tuple(sorted(found))


@lru_cache(maxsize=256)
def scripts_of_languages(languages: tuple[str, ...]) -> frozenset[str]:
    """Return the scripts that languages are written in; of a tag that names a script, that one alone."""
    found = {"latin"}
    for tag in languages:
        language, *subtags = tag.lower().replace("_", "-").split("-")
        named = [subtag for subtag in subtags if len(subtag) == 4 and subtag.isalpha()]  # noqa: PLR2004 - ISO 15924
        if named:
            found.add(_tagged(named[0]))
            continue
        found |= main_scripts(language)
        found |= set(SECOND_SCRIPTS.get(language, "").split())
    return frozenset(found)


def main_scripts(language: str) -> frozenset[str]:
    """Return the scripts that a language (ISO 639) is written in first of all; none where that is Latin."""
    return frozenset(script for script, codes in LANGUAGES.items() if language in codes.split())


def _foreign(text: str, known: frozenset[str]) -> list[str]:
    """The scripts of a text that are not known, if most of its letters are in them."""
    counts = Counter(script_of_letter(char) for char in text if char.isalpha())
    foreign = {script: count for script, count in counts.items() if script not in known}
    is_most = 2 * sum(foreign.values()) > counts.total()
    return list(foreign) if is_most else []


def _tagged(subtag: str) -> str:
    """The script of a subtag."""
    names = (name for name in LANGUAGES if name.startswith(subtag))
    return TAGGED.get(subtag) or next(names, subtag)
