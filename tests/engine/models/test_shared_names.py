"""Several entries of one card: whose each name is, before and after the entries are loaded."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from nestvec.assembly.registry import build_registry
from nestvec.config.model_settings import ModelSettings
from nestvec.config.settings import Settings
from nestvec.engine.models.model_registry import ModelRegistry, visible_models
from nestvec.engine.models.served_model import ServedModel
from nestvec.errors import UnknownModelError

from tests.support.served import serve_fake

CARD = "all-MiniLM-L6-v2"
# What the card of the source "static" calls the model.
STATIC = "wordllama-l2-supercat-256"
CARD_ALIAS = "org/of-the-card"


@pytest.fixture(scope="module")
def served(tiny_folder: Path) -> ServedModel:
    """A loaded model, whose specification the entries share."""
    parts = serve_fake(tiny_folder / "tokenizer.json")
    parts.service.close()
    return parts.service.models.resolve("")


def registry(served: ServedModel, first: str, **entries: str) -> ModelRegistry:
    """Make a registry of a first model and further entries; each is named by its settings, else by its card."""

    def open_model(settings: Settings, task: str | None) -> ServedModel:
        card_name = STATIC if settings.model == "static" else settings.model
        name = settings.served_model_name or card_name
        spec = dataclasses.replace(served.spec, name=name)
        original = () if name == card_name else (card_name,)
        aliases = (*original, CARD_ALIAS, *settings.model_aliases)
        return dataclasses.replace(served, spec=spec, aliases=aliases)

    models = {name: ModelSettings(model=model) for name, model in entries.items()}
    return build_registry(Settings(model=first, models=models), open_model)


def load(models: ModelRegistry, order: Sequence[int]) -> None:
    """Load some of the models, in this order."""
    for index in order:
        slot = models.all()[index]
        assert slot.open is not None
        slot.set_model(slot.open())


ORDERS: tuple[list[int], ...] = ([], [0], [1], [0, 1], [1, 0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", [CARD, CARD.upper(), f"{CARD}:latest", f"org/{CARD}"])
def test_a_name_is_first_its_own(served: ServedModel, order: list[int], name: str) -> None:
    """The card's name means the entry that goes by it, whatever is loaded; the other has its own name alone."""
    models = registry(served, CARD, fast=CARD)
    load(models, order)
    first, fast = models.all()
    assert models.find(name) is first
    assert models.find("fast") is models.find("FAST") is fast
    assert [name for _, name in models.listed()] == [CARD, "fast"]
    assert CARD not in models.aliases(fast)


@pytest.mark.parametrize("order", ORDERS)
def test_a_source_that_the_card_renames(served: ServedModel, order: list[int]) -> None:
    """Source, card's name and the card's aliases mean the entry of the card's name, as soon as they are known."""
    models = registry(served, "static", second="static")
    load(models, order)
    first, second = models.all()
    assert models.find("static") is first
    assert models.find("second") is second
    for name in (STATIC, CARD_ALIAS) if order else ():
        assert models.find(name) is first
        assert name not in models.aliases(second)


@pytest.mark.parametrize("order", [[], [1], [2], [1, 2], [0, 1, 2]])
def test_a_name_that_two_share_is_nobodys(served: ServedModel, order: list[int]) -> None:
    """Two entries that both have names of their own leave their source's and card's to nobody; their own still work."""
    models = registry(served, CARD, slow="static", fast="static")
    load(models, order)
    _, slow, fast = models.all()
    assert (models.find("slow"), models.find("fast")) == (slow, fast)
    for name in ("static", STATIC):
        with pytest.raises(UnknownModelError):
            models.find(name)
        assert name not in models.aliases(slow) + models.aliases(fast)


def test_a_lone_entry_has_its_cards_names(served: ServedModel) -> None:
    """Where one entry alone is of a card, the card's names and its source find it."""
    models = registry(served, CARD, fast="static")
    load(models, [1])
    fast = models.all()[1]
    assert {models.find(name) for name in ("static", STATIC)} == {fast}
    assert {"static", STATIC} <= set(models.aliases(fast))


def test_an_alias_of_the_settings_is_before_a_cards(served: ServedModel) -> None:
    """An alias that an entry is given is its own, though another's card has the name too."""
    models = registry(served, CARD, fast="static")
    fast = models.all()[1]
    fast.rename([], [CARD_ALIAS], {})
    load(models, [0, 1])
    assert models.find(CARD_ALIAS) is fast


def test_a_key_for_a_name_sees_its_owner_alone(served: ServedModel) -> None:
    """A key that may use the card's name sees the entry of that name, and not the others of the card."""
    models = registry(served, CARD, fast=CARD)
    load(models, [0, 1])
    token = visible_models.set(frozenset({CARD.casefold()}))
    try:
        assert models.visible() == [models.all()[0]]
    finally:
        visible_models.reset(token)
