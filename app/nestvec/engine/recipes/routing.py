"""Which part of a route takes a text: the first one whose condition holds. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from nestvec.engine.recipes.recipe import Recipe
from nestvec.engine.text.preparation.letters import scripts_of

# Script and language are those of the beginning: what a text is in is told by a page of it.
READ_CHARS: Final = 4_000
# A token has fewer characters on average in any language: so many of a text are enough to tell that it has more tokens
# than a rule says, and of a text of millions only those are tokenized.
CHARS_PER_TOKEN: Final = 64


@dataclass(slots=True)
class TextFacts:
    """What conditions ask of a text; each is worked out once, where it is asked for.

    Attributes:
        text: The text.
        input_type: The role that its call gives it; "none" for none.
        count_tokens: Counts a text's tokens.
        tell_language: Tells a text's language.
        counted_chars: How many of its characters are enough to compare its tokens.
    """

    text: str
    input_type: str
    count_tokens: Callable[[str], int]
    tell_language: Callable[[str], str]
    counted_chars: int
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _tokens: int | None = None

    def number(self, name: str) -> int:
        """Return the number of the text's characters (Unicode code points) or tokens."""
        if name == "characters":
            return len(self.text)
        if self._tokens is None:
            self._tokens = self.count_tokens(self.text[: self.counted_chars])
        return self._tokens

    def words(self, name: str) -> Sequence[str]:
        """Return the text's scripts, its language, or the type that its call gives it."""
        if name == "input_type":
            return (self.input_type,)
        if name not in self._known:
            start = self.text[:READ_CHARS]
            is_script = name == "script"
            self._known[name] = scripts_of(start) if is_script else (self.tell_language(start),)
        return self._known[name]


def route_of(recipe: Recipe, facts: TextFacts) -> int:
    """Return the index of the first part whose condition holds; the last part of a route has none."""
    for number, part in enumerate(recipe.parts[:-1]):
        if part.condition is None or part.condition.holds(facts):
            return number
    return len(recipe.parts) - 1


def fields_of(recipe: Recipe) -> frozenset[str]:
    """Return what a route's conditions ask of a text."""
    conditions = [part.condition for part in recipe.parts if part.condition is not None]
    return frozenset().union(*(condition.fields for condition in conditions))


def counted_chars(recipe: Recipe) -> int:
    """Return how many characters of a text are enough to compare its tokens with what a route's conditions say."""
    numbers = [
        number
        for part in recipe.parts
        if part.condition is not None
        for comparison in part.condition.comparisons
        if comparison.field == "tokens"
        for number in comparison.numbers
    ]
    return (max(numbers, default=0) + 1) * CHARS_PER_TOKEN


def route_header(recipe: Recipe, names: Sequence[str], chosen: Sequence[int]) -> str:
    """Return which part took how many inputs, and why, as an answer's header tells it.

    Args:
        recipe: The route.
        names: The name of each part's model, as callers may see it.
        chosen: The index of the part that took each input.
    """
    told = []
    for number in sorted(set(chosen)):
        condition = recipe.parts[number].condition
        reason = "otherwise" if condition is None else condition.text
        reason = reason.replace("\\", "").replace('"', "'")
        told.append(
            f'{number};model="{names[number]}";when="{reason}";inputs={chosen.count(number)}'
        )
    return ", ".join(told).encode("ascii", "replace").decode()
