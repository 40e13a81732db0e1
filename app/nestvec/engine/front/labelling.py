"""How labels are read by a model: put into a template, with the prompt that the model has for classification."""

from collections.abc import Sequence
from typing import Final

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.tokenization import ROLE_PROMPTS

# Where a label goes in a template.
PLACE: Final = "{}"


def labelling_role(spec: ModelSpec) -> str | None:
    """Return the role of labels and of texts that are compared with them: None where a model has no prompt for it."""
    has_prompt = any(name in spec.prompts for name in ROLE_PROMPTS["classify"])
    return "classify" if has_prompt else None


def is_template(template: str) -> bool:
    """Whether a template has one place for a label."""
    return template.count(PLACE) == 1


def fill_template(template: str, labels: Sequence[str]) -> list[str]:
    """Return each label in a template's place."""
    return [template.replace(PLACE, label) for label in labels]
