"""Pictures among the inputs of a recipe: whether it takes them, how many, and which part of a route does. Pure."""

from collections.abc import Sequence

from nestvec.engine.limits import ServiceLimits
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.recipes.recipe import Recipe
from nestvec.engine.recipes.recipe_slot import OpenPart
from nestvec.engine.recipes.routing import TextFacts
from nestvec.engine.types import EmbedCall
from nestvec.errors import UnsupportedError
from nestvec.system.public_names import public_name

# What is known of a picture where a route chooses: only what its call says.
PICTURE_FIELDS = frozenset({"input_type"})


def check_pictures(
    recipe: Recipe, parts: Sequence[OpenPart], call: EmbedCall, limits: ServiceLimits
) -> None:
    """Refuse pictures that a part of a recipe does not take, or that are too many for all parts together.

    Raises:
        UnsupportedError: A part takes texts only, or no texts and pictures in one input; names it, and the input.
        RequestTooLargeError: There are too many pictures, each counted for every part that decodes it.
    """
    counts = {
        index: len(value.pictures) if isinstance(value, MixedInput) else 1
        for index, value in enumerate(call.inputs)
        if isinstance(value, Picture | MixedInput)
    }
    if not counts:
        return
    shown = next((index for index, count in counts.items() if count), None)
    mixed = next((n for n, value in enumerate(call.inputs) if isinstance(value, MixedInput)), None)
    refuse_parts(recipe, parts, shown, mixed)
    limits.pictures.check_count(sum(counts.values()) * recipe.parts_per_input)


def refuse_parts(
    recipe: Recipe, parts: Sequence[OpenPart], picture: int | None, mixed: int | None
) -> None:
    """Refuse a picture, or an input of texts and pictures, where a part of a recipe does not take it.

    Args:
        recipe: The recipe.
        parts: Its parts.
        picture: The place of the first picture among the inputs; None for no picture.
        mixed: The place of the first input of texts and pictures; None for none.

    Raises:
        UnsupportedError: There is such a part; names it.
    """
    for opened in parts:
        if picture is not None and not opened.takes_pictures:
            raise _refusal(recipe, opened, picture, "pictures", "texts only")
        if mixed is not None and not opened.takes_mixtures:
            others = "either in an input of its own" if opened.takes_pictures else "texts only"
            raise _refusal(recipe, opened, mixed, "texts and pictures in one input", others)


def _refusal(
    recipe: Recipe, opened: OpenPart, index: int, what: str, others: str
) -> UnsupportedError:
    name = public_name(opened.part.view or opened.name)
    return UnsupportedError(
        f"{recipe.name} is a recipe, which takes {what} where all of its parts do, and part '{name}' takes {others}; "
        f"name a model that takes {what}",
        param="input",
        input_index=index,
    )


def route_of_picture(recipe: Recipe, input_type: str) -> int:
    """Return the index of the part that takes a picture: rules that ask for more than the input's type are of texts.

    Args:
        recipe: A route, whose last part has no condition.
        input_type: The role that the call gives its inputs; "none" for none.
    """
    facts = TextFacts("", input_type, len, str, 0)
    for number, part in enumerate(recipe.parts[:-1]):
        condition = part.condition
        if condition is None or (condition.fields <= PICTURE_FIELDS and condition.holds(facts)):
            return number
    return len(recipe.parts) - 1
