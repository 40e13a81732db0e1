"""The table `text`: of the server, of a model among several, of an alias; the wider one holds where one is left out."""

from pathlib import Path

import pytest
from nestvec.assembly.model import alias_presets
from nestvec.assembly.registry import build_registry, rename_models
from nestvec.config.loading import load_settings
from nestvec.config.settings import Settings
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.text.preparation.text_form import (
    PLAIN_TEXTS,
    Stripped,
    TextForm,
    UnicodeForm,
)
from nestvec.errors import ConfigError

FILE = """
[text]
unicode = "nfc"
[models.a]
model = "x"
[models.a.text]
unicode = "nfkc"
strip = "control"
[models.b]
model = "y"
[models.c]
model = "z"
text = {}
[aliases.titles]
text = {template = "{title}"}
[aliases.same]
dimensions = 8
"""


def test_tables(tmp_path: Path) -> None:
    """A model without a table has the first one's, an alias its model's, and an empty table switches all off."""
    path = tmp_path / "nestvec.toml"
    path.write_text(FILE, "utf-8")
    settings = load_settings(config=path)
    forms = {name: of_model.text.form() for name, of_model in settings.per_model().items()}
    nfc = TextForm(UnicodeForm.NFC)
    wide = TextForm(UnicodeForm.NFKC, Stripped.CONTROL)
    assert forms == {"": nfc, "a": wide, "b": nfc, "c": PLAIN_TEXTS}
    presets = alias_presets(settings.per_model()[""])
    assert presets["same"].text is None
    titles = presets["titles"].text
    assert titles is not None
    assert titles.template is not None
    assert (titles.unicode, titles.template.fields) == (None, ("title",))


def test_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment gives the table as JSON; by default nothing is on."""
    assert load_settings().text.form() == PLAIN_TEXTS
    monkeypatch.setenv("NESTVEC_TEXT", '{"template": "{a}: {b}"}')
    assert load_settings().text.template == "{a}: {b}"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('{"template": "{a} {a}"}', "stands twice"),
        ('{"template": "none"}', "at least one field"),
        ('{"unicode": "nfd"}', "'nfc' or 'nfkc'"),
        ('{"stripped": "control"}', "no such setting"),
    ],
)
def test_mistakes(table: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong in the table is named with its place."""
    monkeypatch.setenv("NESTVEC_TEXT", table)
    with pytest.raises(ConfigError, match=message) as raised:
        load_settings()
    assert "NESTVEC_TEXT." in str(raised.value)


def test_a_form_that_no_alias_had_takes_a_restart() -> None:
    """Aliases are read anew while a server runs; one with a form that no tokenizer was opened in is refused."""
    before = Settings(aliases={"a": {"text": {"unicode": "nfc"}}})
    models = build_registry(before, _never_opened)
    same = Settings(aliases={"b": {"text": {"unicode": "nfc"}}, "c": {"dimensions": 8}})
    rename_models(models, before, same)
    assert models.find("b").text_form("b") == TextForm(UnicodeForm.NFC)
    assert models.find("c").text_form("c") == PLAIN_TEXTS
    with pytest.raises(ConfigError, match=r"aliases\.d\.text: .*restart"):
        rename_models(models, before, Settings(aliases={"d": {"text": {"unicode": "nfkc"}}}))


def _never_opened(settings: Settings, task: str | None) -> ServedModel:
    raise NotImplementedError
