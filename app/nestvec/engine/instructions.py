"""What stands before a query that comes with an instruction, and with worked examples.

Source: E5-mistral (arXiv:2401.00368) for instructions; in-context examples as in arXiv:2409.15700. Templates are the
model's own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

PLACE: Final = re.compile(r"\{(instruction|query|response)\}")


@dataclass(frozen=True, slots=True)
class Example:
    """A query and what answers it."""

    query: str
    response: str


@dataclass(frozen=True, slots=True)
class Instruct:
    """A model's templates.

    Attributes:
        template: With `{instruction}`; the text follows it.
        example: With `{instruction}`, `{query}` and `{response}`; "" where the model takes none.
    """

    template: str
    example: str = ""

    def prefix(self, instruction: str, examples: Sequence[Example] = ()) -> str:
        """What to put before a text."""
        shown = "".join(
            _filled(
                self.example,
                {"instruction": instruction, "query": one.query, "response": one.response},
            )
            for one in examples
        )
        return shown + _filled(self.template, {"instruction": instruction})


def _filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its places filled, whatever braces the values hold."""
    return PLACE.sub(lambda found: values.get(found[1], found[0]), template)
