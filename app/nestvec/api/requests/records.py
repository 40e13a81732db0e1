"""Objects among the inputs, which a model's template writes as texts; without a template they are what they were."""

from collections.abc import Callable, Mapping
from typing import Any

from nestvec.api.requests.fields import invalid_item
from nestvec.api.requests.foreign_fields import MAX_SLIPS, slip_of
from nestvec.api.requests.json_parts import CHARS_PER_SLICE, Turns
from nestvec.api.requests.pictures.parts import names_picture
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.engine.text.preparation.record_template import RecordTemplate
from nestvec.errors import InputError


async def write_records(
    value: object, slot: ModelSlot, name: str, *, check_count: Callable[[int], None]
) -> object:
    """Return `input` with texts for the objects in it, where the model has a template for them; else as it is.

    Pictures stay as they are.

    Args:
        value: As parsed from JSON.
        slot: The model.
        name: The name that the caller gave it, which may be an alias with a template of its own.
        check_count: Raises for too many inputs; called first.

    Raises:
        InputError: An object cannot be written; names the item and the field.
        RequestTooLargeError: There are too many inputs.
    """
    template = slot.text_form(name).template
    if template is None or not isinstance(value, list) or dict not in set(map(type, value)):
        return value
    check_count(len(value))
    turns = Turns(CHARS_PER_SLICE)
    looked_at: set[str] = set()
    texts: list[Any] = []
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            if not isinstance(item, str):
                raise invalid_item("input", index, "must be a string or an object")
            texts.append(item)
            continue
        if _is_picture(item, template):
            texts.append(item)
            continue
        try:
            text = _text_of(item, template, looked_at)
        except InputError as error:
            error.input_index = index
            raise
        texts.append(text)
        await turns.spend(len(text) + 64 * len(item))
    return texts


def _is_picture(record: Mapping[str, Any], template: RecordTemplate) -> bool:
    """Whether a record holds a picture, and no field of the template's."""
    if not names_picture(record) or isinstance(record.get("text"), str):
        return False
    return not any(name in record for name in template.fields)


def _text_of(record: Mapping[str, Any], template: RecordTemplate, looked_at: set[str]) -> str:
    """Write a record, and refuse slips of fields that it lacks.

    Args:
        record: The record.
        template: How it is written.
        looked_at: Unknown fields of the request that were compared with the template's.

    Raises:
        InputError: It cannot be written; names the field.
    """
    missing = {name for name in template.fields if name not in record}
    if missing:
        known = frozenset(template.fields)
        for name in record.keys() - known:
            if len(looked_at) >= MAX_SLIPS and name not in looked_at:
                continue
            looked_at.add(name)
            meant = slip_of(name, known)
            if meant in missing:
                raise InputError(
                    f"a record has the field '{name[:100]}'; did you mean '{meant}', which the template names?",
                    param="input",
                    code="unknown_field",
                )
    return template.text(record)
