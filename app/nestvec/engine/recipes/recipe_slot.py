"""RecipeSlot: a recipe among the models that are served."""

from dataclasses import dataclass, field

from nestvec.engine.models.model_registry import ModelSlot
from nestvec.engine.recipes.recipe import Combination, Recipe, RecipePart


@dataclass(frozen=True, slots=True)
class OpenPart:
    """A part of a recipe whose model has been loaded once.

    Attributes:
        slot: The model.
        part: What the recipe says of it; what an alias stands for is filled in.
        name: The model's name as callers may see it.
        space: Fingerprint of the space that the part's vectors are in.
        dimensions: How many values they have; of views and routes where the call asks for no other number.
        takes_pictures: Whether the model takes pictures beside texts.
        takes_mixtures: Whether it takes texts and pictures in one input.
    """

    slot: ModelSlot
    part: RecipePart
    name: str
    space: str
    dimensions: int
    takes_pictures: bool = False
    takes_mixtures: bool = False


@dataclass(slots=True, eq=False)
class RecipeSlot(ModelSlot):
    """A model that is made of others: it has no weights, queue or cache of its own, and theirs are all used.

    Attributes:
        recipe: What it is made of; `parts` are the slots of its parts, in the same order.
        opened: Its parts, once they were loaded; empty before.
    """

    recipe: Recipe = field(default_factory=lambda: Recipe("", Combination.CONCAT, ()))
    opened: tuple[OpenPart, ...] = ()
