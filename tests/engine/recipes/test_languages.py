"""Languages of texts, by the extra's library; without it a route by language is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nestvec.config.loading import load_settings
from nestvec.engine.recipes.conditions import parse_condition
from nestvec.engine.recipes.languages import language_teller
from nestvec.engine.recipes.opening import open_recipe
from nestvec.engine.recipes.recipe import Combination, Recipe, RecipePart
from nestvec.engine.types import EmbedCall
from nestvec.errors import ConfigError

from tests.support.recipes import serve_recipes

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


def by_language(language: str) -> Recipe:
    """Return a route of one language."""
    german = RecipePart("one", prompt="x ", condition=parse_condition(f"language = '{language}'"))
    return Recipe("r", Combination.ROUTE, (german, RecipePart("one")))


async def test_texts_are_routed_by_their_language(tiny_folder: Path) -> None:
    """Each by its own; a language that is never told is a mistake of the settings."""
    pytest.importorskip("py3langid", reason="extra `languages` absent")
    served = serve_recipes(tiny_folder / "tokenizer.json", by_language("de"))
    texts = ["how to train a model", "wie trainiert man ein Modell", "Berlin"]
    result = await served.service.embed(EmbedCall(texts, model="r"))
    assert result.route == (
        '0;model="one";when="language = \'de\'";inputs=1, 1;model="one";when="otherwise";inputs=2'
    )
    served.close()
    served = serve_recipes(tiny_folder / "tokenizer.json", by_language("xx"))
    with pytest.raises(
        ConfigError, match=r"recipes\.r\.route\.0\.when: the language 'xx' is never"
    ):
        open_recipe(served.slots["r"], allows_untrained=True)
    served.close()


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
