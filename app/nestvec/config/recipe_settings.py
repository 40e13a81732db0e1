"""Settings of recipes, models that are made of others: tables `[recipes.NAME]` of the TOML file."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import NoDecode

from nestvec.config.field_types import parse_table
from nestvec.engine.recipes.conditions import parse_condition
from nestvec.engine.recipes.languages import MISSING, is_installed
from nestvec.engine.recipes.recipe import MAX_PARTS

MIN_JOINED: Final = 2
MAX_NAME_CHARS: Final = 200


def _checked_condition(value: str) -> str:
    parse_condition(value)
    return value


class _PartSettings(BaseModel):
    """A model, and how it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, min_length=1, description="Which model; the first by default.")
    dimensions: int | None = Field(None, ge=1, description="Cut its vectors to so many dimensions.")
    prompt: str | None = Field(None, description="Literal text to put before each input.")
    prompt_name: str | None = Field(
        None, description="One of the model's prompts; without either that of the request."
    )
    layers: int | None = Field(None, ge=1, description="Run so many of its layers only.")
    map: str | None = Field(None, min_length=1, description="A map of the model's.")

    @model_validator(mode="after")
    def _has_one_prompt(self) -> Self:
        if self.prompt is not None and self.prompt_name is not None:
            raise ValueError("give either 'prompt' or 'prompt_name'")
        return self


class RecipePartSettings(_PartSettings):
    """A part whose vectors are joined with others', averaged, or given out beside them. A row of `parts`."""

    weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Its share, relative to the others'."
    )
    view: str | None = Field(
        None, min_length=1, max_length=MAX_NAME_CHARS, description="Name of the view."
    )


class RouteRuleSettings(_PartSettings):
    """A rule of a route, and the model that takes the inputs for which it holds. A row of `route`."""

    when: Annotated[str, AfterValidator(_checked_condition)] | None = Field(
        None, description="The condition; the last rule has none."
    )


class RecipeSettings(BaseModel):
    """A model that is made of others. A row of `recipes`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    combine: Literal["concat", "mean", "views"] | None = Field(
        None, description="What is made of the vectors of `parts`."
    )
    parts: list[RecipePartSettings] = Field(default_factory=list, max_length=MAX_PARTS)
    route: list[RouteRuleSettings] = Field(default_factory=list, max_length=MAX_PARTS)
    allow_spaces: bool = Field(
        False, description="Whether a route's models may give vectors of several spaces."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        problems = self._route_problems() if self.route else self._parts_problems()
        for problem in problems:
            raise ValueError(problem)
        return self

    def _route_problems(self) -> Iterator[str]:
        if self.combine is not None or self.parts:
            yield "give either 'route', or 'combine' and 'parts'"
        for number, rule in enumerate(self.route):
            is_last = number == len(self.route) - 1
            if is_last and rule.when is not None:
                yield f"route.{number}: the last rule takes what no other does, and has no 'when'"
            if not is_last and rule.when is None:
                yield f"route.{number}: needs 'when': only the last rule takes everything"

    def _parts_problems(self) -> Iterator[str]:
        if self.combine is None or not self.parts:
            yield "give 'combine' and 'parts', or 'route'"
        if self.allow_spaces:
            yield "'allow_spaces' is for routes"
        if self.combine != "views" and len(self.parts) < MIN_JOINED:
            yield f"'{self.combine}' needs two parts at least"
        names = [part.view for part in self.parts]
        for number, part in enumerate(self.parts):
            place = f"parts.{number}"
            if self.combine != "views":
                if part.view is not None:
                    yield f"{place}.view: '{self.combine}' has no views"
            elif part.view is None:
                yield f"{place}: needs 'view', the name of its vectors"
            elif part.view in names[:number]:
                yield f"{place}.view: '{part.view}' is the name of another part's vectors"
            elif "weight" in part.model_fields_set:
                yield f"{place}.weight: views are not weighed"


RecipeTable = Annotated[dict[str, RecipeSettings], NoDecode, BeforeValidator(parse_table)]


def recipe_problems(
    recipes: Mapping[str, RecipeSettings], names: Mapping[str, str], first: str
) -> list[str]:
    """Return the problems of recipes that show only beside the models that are served, a sentence for each.

    Args:
        recipes: The recipes by their names.
        names: Every name that a model goes by in the settings, in lower case, with the table that gives it.
        first: The name of the first model, which is meant where a part names none.
    """
    problems = _language_problems(recipes)
    folded = {name.casefold(): name for name in recipes}
    if len(folded) < len(recipes):
        problems.append("recipes: two have the same name but for upper and lower case")
    for name, recipe in recipes.items():
        if not name or name.casefold() in names:
            problems.append(f"recipes.{name}: the name '{name}' is given to a model as well")
        table = "route" if recipe.route else "parts"
        widths: dict[int, int] = {}
        for number, part in enumerate(recipe.route or recipe.parts):
            place = f"recipes.{name}.{table}.{number}"
            model = part.model or first
            if model.casefold() in folded:
                problems.append(_nested(recipes, folded, name, place, model))
            elif model.casefold() not in names:
                known = ", ".join(names) or "none"
                problems.append(f"{place}.model: no model is called '{model}'; there are: {known}")
            if part.dimensions is not None:
                widths[number] = part.dimensions
        if recipe.combine == "mean" and len(set(widths.values())) > 1:
            told = ", ".join(f"parts.{number} {width}" for number, width in widths.items())
            problems.append(
                f"recipes.{name}: only vectors of as many dimensions have a mean, and these differ: {told}"
            )
    return problems


def _language_problems(recipes: Mapping[str, RecipeSettings]) -> list[str]:
    """Return that the library is missing which routes by language need."""
    conditions = [rule.when for recipe in recipes.values() for rule in recipe.route]
    asks = any("language" in parse_condition(text).fields for text in conditions if text)
    return [MISSING] if asks and not is_installed() else []


def _nested(
    recipes: Mapping[str, RecipeSettings],
    folded: Mapping[str, str],
    name: str,
    place: str,
    model: str,
) -> str:
    """Return why a part cannot be a recipe, by the whole circle where they go round in one."""
    path = [name]
    following: str | None = folded[model.casefold()]
    while following is not None and following not in path:
        path.append(following)
        recipe = recipes[following]
        inner = [(part.model or "").casefold() for part in recipe.route or recipe.parts]
        following = next((folded[each] for each in inner if each in folded), None)
    if following == name:
        return f"{place}.model: recipes go round in a circle: {' → '.join([*path, name])}"
    return f"{place}.model: '{model}' is a recipe itself; parts are models"
