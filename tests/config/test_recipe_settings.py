"""Settings of recipes: what they may say, and that what they may not is named before a server starts."""

from pathlib import Path

import pytest
from nestvec.config.loading import load_settings
from nestvec.config.recipe_settings import RecipeSettings
from nestvec.config.settings import Settings
from nestvec.errors import ConfigError

MODELS = """
model = "first"
model_aliases = ["also-first"]
[models.second]
model = "org/second"
aliases = ["two"]
adapters = { task = "/adapter" }
[aliases]
short = { model = "second", dimensions = 8 }
"""


def load(tmp_path: Path, recipes: str) -> Settings:
    """Read settings with these recipes."""
    file = tmp_path / "nestvec.toml"
    file.write_text(MODELS + recipes)
    return load_settings(config=file)


def test_tables_lists_and_json_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of the file, and a variable with JSON."""
    content = (
        '[recipes.a]\ncombine = "concat"\nparts = [{model = "two", weight = 0.8}, {dimensions = 4}]'
    )
    by_file = load(tmp_path, content).recipes
    text = '{"a": {"combine": "concat", "parts": [{"model": "two", "weight": 0.8}, {"dimensions": 4}]}}'
    monkeypatch.setenv("NESTVEC_RECIPES", text)
    assert load(tmp_path, "").recipes == by_file
    assert isinstance(by_file["a"], RecipeSettings)


@pytest.mark.parametrize(
    "name", ["first", "also-first", "second", "org/second", "TWO", "short", "second:task"]
)
def test_parts_go_by_any_name_of_a_model(tmp_path: Path, name: str) -> None:
    """Its own, an alias, its source, in any case, with the task of an adapter."""
    settings = load(
        tmp_path, f'[recipes.a]\ncombine = "mean"\nparts = [{{model = "{name}"}}, {{}}]'
    )
    assert [part.model for part in settings.recipes["a"].parts] == [name, None]


PROBLEMS = {
    '[recipes.a]\ncombine = "sum"\nparts = [{}, {}]': "recipes.a.combine",
    '[recipes.a]\ncombine = "mean"\nparts = [{}]': "'mean' needs two parts at least",
    "[recipes.a]\nparts = [{}, {}]": "give 'combine' and 'parts', or 'route'",
    '[recipes.a]\ncombine = "mean"': "give 'combine' and 'parts', or 'route'",
    '[recipes.a]\ncombine = "mean"\nparts = [{}, {weight = 0}]': "recipes.a.parts.1.weight",
    '[recipes.a]\ncombine = "mean"\nparts = [{}, {weight = nan}]': "recipes.a.parts.1.weight",
    '[recipes.a]\ncombine = "mean"\nparts = [{}, {weight = inf}]': "recipes.a.parts.1.weight",
    '[recipes.a]\ncombine = "mean"\nparts = [{weight = -1.0}, {}]': "recipes.a.parts.0.weight",
    '[recipes.a]\ncombine = "mean"\nparts = [{size = 3}, {}]': "recipes.a.parts.0.size (in the",
    '[recipes.a]\ncombine = "mean"\nparts = [{dimensions = 3}, {dimensions = 4}]': (
        "recipes.a: only vectors of as many dimensions have a mean, and these differ: parts.0 3, parts.1 4"
    ),
    '[recipes.a]\ncombine = "concat"\nparts = [{model = "third"}, {}]': (
        "recipes.a.parts.0.model: no model is called 'third'; there are: first, also-first, second"
    ),
    '[recipes.a]\ncombine = "concat"\nparts = [{prompt = "x", prompt_name = "y"}, {}]': (
        "give either 'prompt' or 'prompt_name'"
    ),
    '[recipes.a]\ncombine = "concat"\nparts = [{view = "x"}, {}]': "'concat' has no views",
    '[recipes.a]\ncombine = "concat"\nallow_spaces = true\nparts = [{}, {}]': "is for routes",
    '[recipes.a]\ncombine = "views"\nparts = [{view = "x"}, {}]': "parts.1: needs 'view'",
    '[recipes.a]\ncombine = "views"\nparts = [{view = "x"}, {view = "x"}]': "another part's",
    '[recipes.a]\ncombine = "views"\nparts = [{view = "x", weight = 2}]': "are not weighed",
    '[recipes.a]\ncombine = "views"\nparts = [{view = "x"}]\nroute = [{}]': "give either 'route'",
    "[recipes.a]\nroute = [{}, {}]": "route.0: needs 'when': only the last rule takes everything",
    '[recipes.a]\nroute = [{when = "tokens > 5"}]': "route.0: the last rule takes what no other",
    '[recipes.a]\nroute = [{when = "tokens > x"}, {}]': "recipes.a.route.0.when",
    '[recipes.a]\nroute = [{when = "tokens > 5", weight = 2}, {}]': "recipes.a.route.0.weight",
    "[recipes.second]\nroute = [{}]": "recipes.second: the name 'second' is given to a model",
    "[recipes.SHORT]\nroute = [{}]": "recipes.SHORT: the name 'SHORT' is given to a model",
    "[recipes.a]\nroute = [{}]\n[recipes.A]\nroute = [{}]": "two have the same name but for",
    '[recipes.a]\nroute = [{model = "a"}]': "recipes go round in a circle: a → a",
    '[recipes.a]\nroute = [{model = "b"}]\n[recipes.b]\nroute = [{model = "c"}]\n'
    '[recipes.c]\nroute = [{model = "a"}]': "recipes.b.route.0.model: recipes go round in a circle: b → c → a → b",
    '[recipes.a]\nroute = [{model = "b"}]\n[recipes.b]\nroute = [{}]': (
        "recipes.a.route.0.model: 'b' is a recipe itself; parts are models"
    ),
    '[recipes.a]\ncombine = "concat"\nparts = [' + "{}, " * 17 + "]": "recipes.a.parts",
}


@pytest.mark.parametrize("recipes", PROBLEMS)
def test_what_is_no_recipe_is_named(tmp_path: Path, recipes: str) -> None:
    """By the place in the file; `nestvec config` and every start tell it."""
    with pytest.raises(ConfigError) as error:
        load(tmp_path, recipes)
    assert PROBLEMS[recipes] in "\n".join(error.value.problems)
