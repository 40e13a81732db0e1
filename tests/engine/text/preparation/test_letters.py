"""Scripts of texts, by their letters' names."""

import pytest
from nestvec.engine.text.preparation.letters import script_of_letter, scripts_of


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("plain words", ("latin",)),
        ("ｆｕｌｌ ｗｉｄｔｈ", ("latin",)),
        ("Привет, мир", ("cyrillic",)),
        ("Γειά σου Κόσμε", ("greek",)),
        ("שלום עולם", ("hebrew",)),
        ("مرحبا بالعالم", ("arabic",)),
        ("नमस्ते दुनिया", ("devanagari",)),
        ("สวัสดีชาวโลก", ("thai",)),
        ("안녕하세요 세계", ("hangul", "cjk")),
        ("你好世界", ("han", "cjk")),
        ("これはペンです", ("hiragana", "cjk")),
        ("ｶﾀｶﾅ", ("katakana", "cjk")),
        ("123 + 45 = 🙂", ("none",)),
        ("", ("none",)),
        ("ᚠᚢᚦ", ("other",)),
        # Kana and Han together outweigh the Latin letters, of which there are more than of either.
        ("漢字かなtext", ("han", "cjk")),
        ("Das Wort 你 ist Chinesisch", ("latin",)),
    ],
)
def test_the_script_of_most_letters(text: str, scripts: tuple[str, ...]) -> None:
    """It is that of most letters; scripts of one family count together against others."""
    assert scripts_of(text) == scripts


def test_letters_are_those_of_the_script_property() -> None:
    """Letters at the edges of names: of half width, of ligatures, historic kana, signs of repetition."""
    letters = {"ｱ": "katakana", "ﬁ": "latin", "々": "han", "\U0001b002": "hiragana", "ﹱ": "arabic"}
    assert {letter: script_of_letter(letter) for letter in letters} == letters
