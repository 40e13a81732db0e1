"""What stands before a query that comes with an instruction, and with worked examples.

Source: E5-mistral (arXiv:2401.00368) for instructions; in-context examples as in arXiv:2409.15700. Templates are the
model's own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nestvec.engine.types import Example

PLACEHOLDER: Final = re.compile(r"\{(instruction|query|response)\}")


@dataclass(frozen=True, slots=True)
class Instruct:
    """A model's templates for instructions.

    Attributes:
        template: Text with `{instruction}`; the input follows it.
        example: Text with `{instruction}`, `{query}` and `{response}`; "" where the model takes no examples.
    """

    template: str
    example: str = ""

    def prefix(self, instruction: str, examples: Sequence[Example] = ()) -> str:
        """Return what to put before a text: the examples and the instruction, in the model's templates."""
        filled_examples = "".join(
            _filled(
                self.example,
                {"instruction": instruction, "query": example.query, "response": example.response},
            )
            for example in examples
        )
        return filled_examples + _filled(self.template, {"instruction": instruction})


def _filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its placeholders filled, whatever braces the values hold."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)
