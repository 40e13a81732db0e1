"""Texts in scripts that a model's card does not know."""

import pytest
from nestvec.engine.text.preparation.scripts import (
    CALL_CHARS,
    foreign_scripts,
    scripts_of_languages,
)

GREETINGS = {
    "en": "Hello, naïve café ﬁne ①",
    "fr": "Ça va, l’été à Orléans",
    "vi": "Xin chào thế giới",
    "de": "Straße, Übergröße, ½ €",
    "ru": "Привет, мир",
    "uk": "Привіт, світе",
    "zh": "你好，世界",
    "zh-Hant": "你好，世界",
    "ja": "こんにちは、世界のカタカナ",
    "ko": "안녕하세요",
    "ar": "مرحبا بالعالم",
    "fa": "سلام دنیا",
    "hi": "नमस्ते दुनिया",
    "el": "Γειά σου Κόσμε",
    "he": "שלום עולם",
    "th": "สวัสดีชาวโลก",
    "ka": "გამარჯობა",
    "hy": "Բարեւ աշխարհ",
    "ta": "வணக்கம்",
    "am": "ሰላም ልዑል",
    "my": "မင်္ဂလာပါ",
}


@pytest.mark.parametrize("language", GREETINGS)
def test_a_language_is_in_its_own_script(language: str) -> None:
    """No text is foreign to a model of its own language; those of other scripts are foreign to one of English."""
    text = GREETINGS[language]
    assert foreign_scripts([text], [language]) == ()
    is_latin = language in ("en", "fr", "vi", "de")
    assert bool(foreign_scripts([text], ["en"])) is not is_latin


def test_scripts_are_named() -> None:
    """Several texts' scripts are named, sorted; a text counts if most of its letters are in them."""
    texts = ["plain", GREETINGS["ru"], "A long English text on the word мир", GREETINGS["ko"]]
    assert foreign_scripts(texts, ["en", "de"]) == ("cyrillic", "hangul")
    assert foreign_scripts(texts, ["en", "ru"]) == ("hangul",)


def test_nothing_is_foreign_to_a_model_of_unknown_languages() -> None:
    """A card without languages tells nothing, and neither do signs, digits and emoji."""
    assert foreign_scripts(list(GREETINGS.values()), []) == ()
    assert foreign_scripts(["😀 → ∑ 123 ①", "\U0001d400\U0001d401", "ªº", "\ue000"], ["en"]) == ()


def test_tags_of_scripts() -> None:
    """A subtag of a script stands for that script."""
    assert "cyrillic" in scripts_of_languages(("sr",))
    assert scripts_of_languages(("sr-Latn",)) == {"latin"}
    assert "arabic" in scripts_of_languages(("ms-Arab-MY",))
    assert "han" in scripts_of_languages(("zh-Hant",))


def test_long_texts_are_told_by_their_beginning() -> None:
    """The beginnings of the first texts are looked at, so that a call costs no more than so many characters."""
    assert foreign_scripts(["a" * 2000 + GREETINGS["ru"] * 1000], ["en"]) == ()
    assert foreign_scripts([GREETINGS["de"] * CALL_CHARS] * 20 + [GREETINGS["ru"]], ["en"]) == ()
