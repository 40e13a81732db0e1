"""Pictures among the inputs of a recipe: whether it takes them, how many, and which part of a route does. Pure."""

from collections.abc import Sequence

from nestvec.engine.limits import ServiceLimits
from nestvec.engine.pictures.picture import Picture
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
        UnsupportedError: A part takes texts only; names it, and the first picture.
        RequestTooLargeError: There are too many pictures, each counted for every part that decodes it.
    """
    places = [index for index, value in enumerate(call.inputs) if isinstance(value, Picture)]
    if not places:
        return
    refuse_text_parts(recipe, parts, places[0])
    limits.pictures.check_count(len(places) * recipe.parts_per_input)


def refuse_text_parts(recipe: Recipe, parts: Sequence[OpenPart], index: int) -> None:
    """Refuse a picture where a part of a recipe takes texts only.

    Args:
        recipe: The recipe.
        parts: Its parts.
        index: The place of the picture among the inputs.

    Raises:
        UnsupportedError: There is such a part; names it.
    """
    for opened in parts:
        if not opened.takes_pictures:
            name = public_name(opened.part.view or opened.name)
            raise UnsupportedError(
                f"{recipe.name} is a recipe, which takes pictures where all of its parts do, and part '{name}' takes "
                "texts only; name a model that takes pictures",
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
