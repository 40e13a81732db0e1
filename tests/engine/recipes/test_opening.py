"""Opening recipes: parts are checked against their models, and tell the recipe's space and description."""

from dataclasses import replace
from pathlib import Path

import pytest
from nestvec.engine.models.served_model import AliasPreset
from nestvec.engine.recipes.conditions import parse_condition
from nestvec.engine.recipes.opening import open_recipe
from nestvec.engine.recipes.recipe import Combination, Recipe, RecipePart
from nestvec.engine.types import EmbedCall
from nestvec.errors import ConfigError, ModelUnavailableError

from tests.support.recipes import concat, serve_recipes

ONE, TWO = RecipePart("one"), RecipePart("two")


def mean(*parts: RecipePart) -> Recipe:
    """Return a recipe that averages parts."""
    return Recipe("r", Combination.MEAN, parts)


def route(*parts: RecipePart, allows_spaces: bool = False) -> Recipe:
    """Return a route whose rules hold for more characters each."""
    rules = [
        replace(part, condition=parse_condition(f"characters < {number}"))
        for number, part in enumerate(parts[:-1])
    ]
    return Recipe("r", Combination.ROUTE, (*rules, parts[-1]), allows_spaces)


MISFITS = {
    "widths": (
        mean(ONE, TWO),
        "recipes.r.parts.1: gives 4 dimensions, and recipes.r.parts.0 gives 8",
    ),
    "too wide": (mean(ONE, RecipePart("two", dimensions=8)), "recipes.r.parts.1: Invalid value"),
    "no such prompt": (
        concat(RecipePart("one", prompt_name="x"), TWO, name="r"),
        "r.parts.0: this",
    ),
    "no such map": (
        concat(ONE, RecipePart("two", map_name="m"), name="r"),
        "r.parts.1: this model",
    ),
    "no such layer": (concat(ONE, RecipePart("one", layers=9), name="r"), "parts.1: 'layers' must"),
    "no layers": (concat(ONE, RecipePart("two", layers=1), name="r"), "parts.1: this model always"),
    "spaces": (route(ONE, TWO), "recipes.r.route.1: its vectors are in another space than"),
    "dimensions": (
        route(ONE, RecipePart("one", dimensions=2)),
        "set the same 'dimensions' for all",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
async def test_parts_that_do_not_fit_are_named(tiny_folder: Path, case: str) -> None:
    """By their place in the settings; the recipe is not served."""
    recipe, says = MISFITS[case]
    served = serve_recipes(tiny_folder / "tokenizer.json", recipe)
    try:
        with pytest.raises(ConfigError) as error:
            open_recipe(served.slots["r"], allows_untrained=False)
        assert says in error.value.problems[0]
        with pytest.raises(ModelUnavailableError):
            await served.service.embed(EmbedCall(["a"], model=recipe.name))
    finally:
        served.close()


def spaces_of(tokenizer: Path, *recipes: Recipe) -> list[str]:
    """Return the fingerprints of recipes, each of a service of its own."""
    spaces = []
    for recipe in recipes:
        served = serve_recipes(tokenizer, recipe)
        spaces.append(open_recipe(served.slots[recipe.name], allows_untrained=True).spec.space)
        served.close()
    return spaces


def test_the_space_tells_all_that_decides_the_vectors(tiny_folder: Path) -> None:
    """Dimensions, prompts, layers, order and shares of parts; neither the recipe's name nor the size of weights."""
    others = [
        concat(TWO, ONE),
        concat(ONE, replace(TWO, weight=2.0)),
        concat(ONE, replace(TWO, dimensions=2)),
        concat(ONE, replace(TWO, prompt="x")),
        concat(ONE, replace(TWO, prompt_name="query")),
        concat(replace(ONE, layers=1), TWO),
        concat(ONE, TWO, TWO),
    ]
    same = [
        concat(ONE, TWO, name="other"),
        concat(replace(ONE, weight=3.0), replace(TWO, weight=3.0)),
        concat(ONE, replace(TWO, dimensions=4)),
    ]
    tokenizer = tiny_folder / "tokenizer.json"
    first, *rest = spaces_of(tokenizer, concat(ONE, TWO), *same, *others)
    assert rest[: len(same)] == [first] * len(same)
    assert len({first, *rest}) == 1 + len(others)


def test_what_an_alias_stands_for_is_a_parts_own(tiny_folder: Path) -> None:
    """Its prompt and dimensions, where the recipe says nothing else; and they stay when aliases are read anew."""
    recipe = concat(RecipePart("short"), RecipePart("one", dimensions=3))
    served = serve_recipes(tiny_folder / "tokenizer.json", concat(ONE, ONE))
    slot = served.slots["both"]
    one = slot.parts[0]
    one.rename([], ["short"], {"short": AliasPreset("query", 2)})
    slot.recipe = recipe
    model = open_recipe(slot, allows_untrained=True)
    assert model.spec.hidden_size == 5
    assert [each.part.prompt_name for each in slot.opened] == ["query", None]
    served.close()


def test_a_recipe_is_described_by_its_parts(tiny_folder: Path) -> None:
    """Its dimensions, the least of the parts' lengths, and the prompts that a call can name."""
    recipes = (
        concat(ONE, RecipePart("two", prompt="x"), name="a"),
        Recipe("b", Combination.VIEWS, (replace(ONE, view="x"), replace(TWO, view="y"))),
    )
    served = serve_recipes(tiny_folder / "tokenizer.json", *recipes)
    first, second = (open_recipe(slot, allows_untrained=True) for slot in served.slots.values())
    assert (first.spec.hidden_size, first.spec.max_tokens) == (12, 64)
    assert sorted(first.spec.prompts) == ["document", "query"]
    assert (second.spec.hidden_size, second.core.backend_info.hidden_size) == (8, 12)
    served.close()
