"""Model cards: those that are shipped, and what is refused."""

import re
from pathlib import Path

import pytest
from nestvec.assembly.sources import CHECKOUT_CARDS
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.vectors.pooling import POOLINGS
from nestvec.errors import FormatError
from nestvec.model_store.package import load_package
from nestvec.model_store.sources.card import card_files, find_card, read_card
from nestvec.model_store.sources.fetch import SourceOptions

# As SPDX spells them (spdx.org/licenses), where it lists them.
LICENSES = {"Apache-2.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "MIT"}
GOOD = """
name = "m"
aliases = ["org/m"]
license = "MIT"
languages = ["en", "zh-Hant", "pt-BR", "es-419"]
trained_dimensions = [256, 64]
[source]
kind = "hub"
name = "org/m"
version = "abc"
[overrides]
pooling = "cls"
[[published]]
text = "t"
first_values = [1, 0.5]
"""


def write(folder: Path, content: str, name: str = "card.toml") -> Path:
    """Write a card file."""
    path = folder / name
    path.write_text(content)
    return path


def test_every_shipped_card_is_readable() -> None:
    """The default model's card states the hashes of its files."""
    cards = {card.name: card for card in map(read_card, card_files((CHECKOUT_CARDS,)))}
    weights = cards["all-MiniLM-L6-v2"].source.sha256["model.safetensors"]
    assert weights.startswith("53aa5117")
    assert weights.endswith("b128d9db")


def every_card() -> list[Path]:
    """Return the paths of the checkout's cards."""
    return card_files((CHECKOUT_CARDS,))


def test_there_is_a_card_for_what_people_serve() -> None:
    """There are more than a hundred models, and no name comes twice."""
    cards = [read_card(path) for path in every_card()]
    assert len(cards) >= 120
    names = [name.casefold() for card in cards for name in {card.name, *card.aliases}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", every_card(), ids=lambda path: path.stem)
def test_every_card_is_whole_and_says_where_from(path: Path) -> None:
    """Name, source, licence, languages, pooling, prompts and sizes each say where they were looked up."""
    card = read_card(path)
    assert path.stem in {card.name, *card.aliases}
    assert card.license in LICENSES or card.license.startswith("LicenseRef-")
    assert card.language_count >= max(1, len(card.languages))
    assert card.parameters >= 100_000
    assert card.description
    fields = {"source", "license", "languages", *(f"facts.{name}" for name in card.facts)}
    fields |= {f"overrides.{name}" for name in card.overrides}
    fields |= {n for n in ("trained_dimensions", "config", "published") if getattr(card, n)}
    assert set(card.looked_up) == fields
    assert all(card.looked_up.values())
    assert card.facts["dimensions"] > 0
    assert all(0 < size <= card.facts["dimensions"] for size in card.trained_dimensions)
    assert card.facts.get("pooling", "mean") in POOLINGS
    for name, prompt in card.overrides.get("prompts", {}).items():
        assert name
        assert prompt.strip()
    if card.source.kind == "hub":
        assert re.fullmatch("[0-9a-f]{40}", card.source.version), "a commit, not a branch"
        assert card.source.name in card.aliases


def test_a_card_that_contradicts_the_files_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    """The error names the fact."""
    facts = "dimensions = {}\npooling = {!r}\n"
    text = ""
    for dimensions, pooling, named in (
        (31, "mean", "facts.dimensions"),
        (32, "cls", "facts.pooling"),
    ):
        text = f'name = "t"\n[source]\nkind = "folder"\nname = "{tiny_folder}"\n[facts]\n'
        write(tmp_path, text + facts.format(dimensions, pooling))
        with pytest.raises(FormatError, match=named):
            load_package("t", SourceOptions(tmp_path / "cache", (tmp_path,)), OnnxBackend)
    write(tmp_path, text + facts.format(32, "mean"))
    package = load_package("t", SourceOptions(tmp_path / "cache", (tmp_path,)), OnnxBackend)
    assert package.spec.name == "t"


def test_a_card_is_read(tmp_path: Path) -> None:
    """All fields of a card are read."""
    card = read_card(write(tmp_path, GOOD))
    assert (card.name, card.aliases, card.trained_dimensions) == ("m", ("org/m",), (256, 64))
    assert (card.source.kind, card.source.version) == ("hub", "abc")
    assert card.overrides == {"pooling": "cls"}
    assert (card.license, card.language_count, card.parameters) == ("MIT", 4, 0)
    assert card.languages == ("en", "zh-Hant", "pt-BR", "es-419")
    assert card.published[0].first_values == (1.0, 0.5)


def test_a_card_may_say_how_many_languages(tmp_path: Path) -> None:
    """Authors often publish a number alone."""
    languages = 'languages = ["en", "zh-Hant", "pt-BR", "es-419"]'
    card = read_card(write(tmp_path, GOOD.replace(languages, "language_count = 100")))
    assert (card.languages, card.language_count) == ((), 100)


@pytest.mark.parametrize("name", ["m", "M", "ORG/m", "card"])
def test_a_card_is_found_by_name_alias_or_file(tmp_path: Path, name: str) -> None:
    """The case of letters does not matter."""
    write(tmp_path, GOOD)
    card = find_card(name, (tmp_path / "absent", tmp_path))
    assert card is not None
    assert card.name == "m"
    assert find_card("other", (tmp_path,)) is None


def test_earlier_folders_win(tmp_path: Path) -> None:
    """An operator's card comes before the shipped one of the same name."""
    for number in ("one", "two"):
        (tmp_path / number).mkdir()
        write(tmp_path / number, GOOD.replace('version = "abc"', f'version = "{number}"'))
    card = find_card("m", (tmp_path / "one", tmp_path / "two"))
    assert card is not None
    assert card.source.version == "one"


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ('name = "m"', "", "'name' is missing"),
        ('name = "m"', "name = 3", "expected text, got int"),
        ("[overrides]", "[surprise]", "unknown keys surprise"),
        ('pooling = "cls"', 'poling = "cls"', r"overrides\.poling is unknown"),
        ('pooling = "cls"', "pooling = 1", r"overrides\.pooling must be a str"),
        ('kind = "hub"', 'kind = "ftp"', r"source\.kind must be one of"),
        ('kind = "hub"', 'kind = "pypi"', "needs an exact version and sha256"),
        ("first_values = [1, 0.5]", 'first_values = ["x"]', "could not convert"),
        ("[256, 64]", "[256", "not a readable TOML"),
        ('["en", ', '["English", ', "must be a list of BCP-47 tags"),
        ('["en", ', '["zh-Hant", ', "names one twice"),
        ('["en", "zh-Hant", "pt-BR", "es-419"]', '"multilingual"', "must be a list of BCP-47 tags"),
        ('license = "MIT"', "language_count = 4", "is for cards without languages"),
        ('["en", "zh-Hant", "pt-BR", "es-419"]', "[]\nlanguage_count = 0", "must be a number"),
    ],
)
def test_bad_cards_are_refused(tmp_path: Path, before: str, after: str, reason: str) -> None:
    """The error names the file and the key."""
    with pytest.raises(FormatError, match=reason) as caught:
        read_card(write(tmp_path, GOOD.replace(before, after)))
    assert "card.toml" in str(caught.value)


def test_a_missing_card_is_refused(tmp_path: Path) -> None:
    """A card that is not there cannot be read."""
    with pytest.raises(FormatError, match="not a readable"):
        read_card(tmp_path / "none.toml")
