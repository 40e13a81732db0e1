"""What a recipe says, as its settings give it; nothing here knows a model. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nestvec.engine.recipes.conditions import Condition

# Every input goes through every part: so many make the largest call sixteen times one.
MAX_PARTS: Final = 16


class Combination(StrEnum):
    """What is made of the vectors of a recipe's parts."""

    CONCAT = "concat"  # joined: the cosine is the weighted mean of the parts' cosines
    MEAN = "mean"  # averaged, as unit vectors
    VIEWS = "views"  # given out side by side
    ROUTE = "route"  # each input's is that of one part, which rules choose


@dataclass(frozen=True, slots=True)
class RecipePart:
    """One part of a recipe: a model, and how it is asked.

    Attributes:
        model: Name of the model; "" for the first one.
        weight: Share of the vector, relative to the other parts'; of joined and averaged ones.
        dimensions: Cut the part's vectors to this many leading values; None keeps what the call asks for, or all.
        prompt: A literal text to put before each input.
        prompt_name: Name of one of the model's prompts.
        layers: Run so many of the model's layers only.
        map_name: The model's map that vectors go through.
        view: Name of the part's vectors, where they are given out side by side.
        condition: When the part is chosen by a route; None always.
    """

    model: str = ""
    weight: float = 1.0
    dimensions: int | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    layers: int | None = None
    map_name: str | None = None
    view: str = ""
    condition: Condition | None = None

    @property
    def has_prompt(self) -> bool:
        """Whether the recipe says which prompt stands before the part's inputs."""
        return self.prompt is not None or self.prompt_name is not None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe: what is made of which parts.

    Attributes:
        name: Name that it is served under.
        combination: What is made of the parts' vectors.
        parts: The parts, in the order in which they are joined, listed or tried.
        allows_spaces: Whether the parts of a route may give vectors of several spaces.
    """

    name: str
    combination: Combination
    parts: tuple[RecipePart, ...]
    allows_spaces: bool = False

    @property
    def parts_per_input(self) -> int:
        """How many parts read each input."""
        return 1 if self.combination is Combination.ROUTE else len(self.parts)

    def place(self, number: int) -> str:
        """Return the name of a part's table in the settings, for what is told of it.

        Args:
            number: Index of the part.
        """
        table = "route" if self.combination is Combination.ROUTE else "parts"
        return f"recipes.{self.name}.{table}.{number}"
