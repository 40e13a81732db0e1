"""Names that find a model, and names that do not."""

import dataclasses
from pathlib import Path

import pytest
from nestvec.engine.models.model_registry import ModelRegistry, ModelSlot, visible_models
from nestvec.engine.models.served_model import ServedModel
from nestvec.errors import UnknownModelError

from tests.support.served import SPEC, ServedOptions, serve_fake


@pytest.fixture(scope="module")
def served(tiny_folder: Path) -> ServedModel:
    """A loaded model."""
    parts = serve_fake(tiny_folder / "tokenizer.json")
    parts.service.close()
    return parts.service.models.resolve("")


def registry(*models: ServedModel, accepts_any: bool = False) -> ModelRegistry:
    """Make a registry of models."""
    parts = ModelRegistry(accepts_any=accepts_any)
    for model in models:
        parts.add(model)
    return parts


@pytest.mark.parametrize(
    "name",
    [
        "org/fake-model",
        "ORG/Fake-Model",
        "fake-model",
        "org/fake-model:latest",
        "text-embedding-3-small",
        "",
    ],
)
def test_a_model_is_found(served: ServedModel, name: str) -> None:
    """A model is found by exact name, any case, last segment, tag, alias, or no name at all."""
    assert registry(served).resolve(name) is served


@pytest.mark.parametrize("name", ["other", "fake", "other/fake-model", "org/fake-model2"])
def test_an_unknown_name_is_refused(served: ServedModel, name: str) -> None:
    """An unknown name is refused; another organization's model of the same last segment is another model."""
    with pytest.raises(UnknownModelError, match=f"The model `{name}` does not exist"):
        registry(served).resolve(name)


def test_an_unknown_name_is_told_what_the_key_may_see(served: ServedModel) -> None:
    """The refusal names the models served, but none that the caller's key may not use."""
    models = registry(served)
    hidden = ModelSlot(names=("secret-model",))
    models.add(hidden)
    with pytest.raises(
        UnknownModelError, match=r"access to it\. Here: org/fake-model, secret-model\."
    ):
        models.find("other")
    token = visible_models.set(frozenset({"org/fake-model"}))
    try:
        with pytest.raises(UnknownModelError, match=r"Here: org/fake-model\.$"):
            models.find("secret-model")
    finally:
        visible_models.reset(token)
    many = ModelRegistry()
    for number in range(12):
        many.add(ModelSlot(names=(f"/srv/models/m{number}",)))
    with pytest.raises(UnknownModelError, match=r"Here: m0, .*, m9 and 2 more\.$"):
        many.find("other")


def test_any_name_where_the_operator_says_so(served: ServedModel) -> None:
    """Where the operator accepts any name, an unknown one means the first model, as a missing one does."""
    assert registry(served, accepts_any=True).resolve("whatever") is served
    both = registry(served, second(served), accepts_any=True)
    assert both.resolve("whatever") is served
    assert both.resolve("another/fake-model") is not served


def second(served: ServedModel) -> ServedModel:
    """Make another organization's model of the same last segment."""
    spec = dataclasses.replace(served.spec, name="another/fake-model")
    return dataclasses.replace(served, spec=spec, aliases=())


def test_with_several_models_a_name_must_be_clear(served: ServedModel) -> None:
    """A last segment that fits two models finds none; no name means the first."""
    both = registry(served, second(served))
    assert both.resolve("another/fake-model").spec.name == "another/fake-model"
    with pytest.raises(UnknownModelError):
        both.resolve("fake-model")
    assert both.resolve("") is served


def test_options_of_the_fixture_are_used(tiny_folder: Path) -> None:
    """The test helper serves a model with the options it is given."""
    options = ServedOptions(spec=dataclasses.replace(SPEC, name="x"), aliases=("y",))
    parts = serve_fake(tiny_folder / "tokenizer.json", options)
    parts.service.close()
    assert parts.service.models.resolve("y").spec.name == "x"
