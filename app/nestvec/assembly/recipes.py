"""Settings to recipes: a slot for each among the models that are served."""

from functools import partial

from nestvec.config.recipe_settings import RecipePartSettings, RecipeSettings, RouteRuleSettings
from nestvec.config.settings import Settings
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import ModelRegistry, ModelSlot
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.recipes.conditions import parse_condition
from nestvec.engine.recipes.languages import language_teller
from nestvec.engine.recipes.opening import open_recipe
from nestvec.engine.recipes.recipe import Combination, Recipe, RecipePart
from nestvec.engine.recipes.recipe_slot import RecipeSlot
from nestvec.engine.recipes.routing import fields_of
from nestvec.errors import ConfigError, ModelError


def add_recipes(pool: ModelPool, settings: Settings) -> None:
    """Serve the recipes of the settings; those of models that are to be there from the start are opened with these.

    A model that cannot be loaded leaves the others serving; a recipe of it is opened when it is meant.

    Raises:
        ConfigError: Parts do not fit together, or cannot give what a recipe says of them; nothing is to be served then.
    """
    problems: list[str] = []
    for name, of_recipe in settings.recipes.items():
        try:
            slot = pool.models.add(_slot(pool.models, settings, name, of_recipe))
            if slot.loads_at_start:
                _open(pool, slot)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def check_recipes(pool: ModelPool, settings: Settings) -> None:
    """Check recipes where their models run, before any process serves them.

    Raises:
        ConfigError: Parts do not fit together, or cannot give what a recipe says of them.
    """
    if settings.recipes:
        served = ModelRegistry(_slots=list(pool.models.all()))
        add_recipes(ModelPool(served, on_change=pool.on_change), settings)


def _open(pool: ModelPool, slot: ModelSlot) -> None:
    """Open a recipe and the models that it is made of.

    Raises:
        ConfigError: They do not fit together.
    """
    for part in slot.parts:
        if part.model is None:
            try:
                pool.open_now(part)
            except ModelError:
                pool.on_change(part)
                return
    pool.open_now(slot)


def _slot(
    models: ModelRegistry, settings: Settings, name: str, of_recipe: RecipeSettings
) -> RecipeSlot:
    """Return the slot of a recipe.

    Raises:
        ConfigError: It needs a library that is not installed.
    """
    recipe = recipe_of(name, of_recipe)
    if "language" in fields_of(recipe):
        language_teller()
    parts = tuple(models.find(part.model) for part in recipe.parts)
    slot = RecipeSlot(
        names=(name,),
        given_names=(name,),
        is_renamed=True,
        is_kept=True,
        parts=parts,
        loads_at_start=all(part.loads_at_start for part in parts),
        recipe=recipe,
    )
    slot.open = partial(_opened, slot, allows_untrained=settings.allow_untrained_layers)
    return slot


def _opened(slot: RecipeSlot, *, allows_untrained: bool) -> ServedModel:
    return open_recipe(slot, allows_untrained=allows_untrained)


def recipe_of(name: str, settings: RecipeSettings) -> Recipe:
    """Return a recipe as its settings give it."""
    rows = settings.route or settings.parts
    combination = Combination(settings.combine or Combination.ROUTE)
    return Recipe(name, combination, tuple(map(_part_of, rows)), settings.allow_spaces)


def _part_of(row: RecipePartSettings | RouteRuleSettings) -> RecipePart:
    weight, view, condition = 1.0, "", None
    if isinstance(row, RecipePartSettings):
        weight, view = row.weight, row.view or ""
    elif row.when is not None:
        condition = parse_condition(row.when)
    return RecipePart(
        model=row.model or "",
        weight=weight,
        dimensions=row.dimensions,
        prompt=row.prompt,
        prompt_name=row.prompt_name,
        layers=row.layers,
        map_name=row.map,
        view=view,
        condition=condition,
    )
