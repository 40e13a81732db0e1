"""Languages of texts, by the extra's library; without it a route by language is refused."""

import sys
from collections.abc import Iterator

import pytest
from nestvec.config.loading import load_settings
from nestvec.engine.recipes.languages import language_teller
from nestvec.errors import ConfigError

RECIPE = '{"a": {"route": [{"when": "language = \'de\'", "prompt": "x"}, {}]}}'


@pytest.fixture(autouse=True)
def _tellers_are_of_one_test() -> Iterator[None]:
    """Forget whether the library was there."""
    language_teller.cache_clear()
    yield
    language_teller.cache_clear()


def test_languages_are_told_by_their_codes() -> None:
    """As ISO 639 writes them; "und" where a text says too little, varieties of Chinese under its code."""
    pytest.importorskip("py3langid", reason="extra `languages` absent")
    tell, known = language_teller()
    texts = {
        "how to train a model": "en",
        "Der schnelle braune Fuchs springt über den faulen Hund": "de",
        "comment ça va": "fr",
        "これはペンです": "ja",
        "你好世界": "zh",
        "Berlin": "und",
        "1234": "und",
        "": "und",
    }
    assert {text: tell(text) for text in texts} == texts
    assert set(texts.values()) <= known


def test_without_the_library_the_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, with the commands that install it; so is opening such a recipe."""
    monkeypatch.setitem(sys.modules, "py3langid", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("NESTVEC_RECIPES", RECIPE)
    with pytest.raises(ConfigError, match=r"make setup EXTRAS=languages.*nestvec\[languages\]"):
        load_settings()
    with pytest.raises(ConfigError, match=r"nestvec\[languages\]"):
        language_teller()
