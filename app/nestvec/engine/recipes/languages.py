"""Which language a text is in, by py3langid (a Bayes classifier over byte n-grams), of the extra `languages`."""

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Final

from nestvec.errors import ConfigError
from nestvec.system.extras import how_to_install

EXTRA: Final = "languages"
# "und" below this probability. Of 262 titles of papers, 9 words each, 240 are told to be English and 3 something else
# (as the likeliest language alone: 255 and 7); "Hello" and "Berlin" are told to be nothing. Abstracts are told all.
MIN_CONFIDENCE: Final = 0.2
UNDETERMINED: Final = "und"
# What the classifier tells apart and its writers do not: varieties under the code of their macrolanguage (ISO 639-3).
MACROLANGUAGES: Final[Mapping[str, str]] = {
    "yue": "zh",
    "wuu": "zh",
    "arz": "ar",
    "ary": "ar",
    "nn": "no",
    "uzs": "uz",
    "sdh": "ku",
    "fuv": "ff",
    "gug": "gn",
    "gom": "kok",
    "ltg": "lv",
    "kik": "ki",
    "zxx": UNDETERMINED,  # no linguistic content
}

MISSING: Final = f"recipes: routes by language need the extra '{EXTRA}': {how_to_install(EXTRA)}"

TellLanguage = Callable[[str], str]


def is_installed() -> bool:
    """Return whether the library is there, without loading it."""
    return importlib.util.find_spec("py3langid") is not None


@functools.cache
def language_teller() -> tuple[TellLanguage, frozenset[str]]:
    """Return what tells a text's language, which may be called from any thread, and the codes that it knows.

    The first call reads the classifier's table: half a second, 40 MB.

    Raises:
        ConfigError: The library is not installed.
    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError([MISSING]) from None
    identifier = LanguageIdentifier.from_model_file(
        MODEL_FILE, norm_probs=True, min_confidence=MIN_CONFIDENCE
    )
    codes = (MACROLANGUAGES.get(code, code) for code in map(str, identifier.nb_classes))

    def tell(text: str) -> str:
        code = str(identifier.classify(text)[0])
        return MACROLANGUAGES.get(code, code)

    return tell, frozenset({*codes, UNDETERMINED})
