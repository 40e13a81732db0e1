"""Reads fields of a parsed body: null is absent, integral floats are integers, booleans and strings are not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from app.errors import InputError

Value = TypeVar("Value", str, bool)
Body = Mapping[str, Any]
Inputs = Sequence[str] | Sequence[Sequence[int]]


def as_integer(value: object) -> int | None:
    """An int, or a float with zero fraction; None for anything else, booleans included."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None


def integer_field(body: Body, name: str) -> int | None:
    """An optional integer.

    Raises:
        InputError: Something else.
    """
    value = body.get(name)
    if value is None:
        return None
    number = as_integer(value)
    if number is None:
        raise InputError(f"'{name}' must be an integer", param=name, code="invalid_type")
    return number


def text_field(body: Body, name: str) -> str | None:
    """An optional string.

    Raises:
        InputError: Something else.
    """
    return _typed_field(body, name, str, "a string")


def boolean_field(body: Body, name: str) -> bool | None:
    """An optional boolean.

    Raises:
        InputError: Something else.
    """
    return _typed_field(body, name, bool, "true or false")


def choice_field(body: Body, name: str, choices: Sequence[str]) -> str | None:
    """An optional string out of a few.

    Raises:
        InputError: Something else; the message lists the choices.
    """
    value = body.get(name)
    if value is not None and value not in choices:
        listed = " or ".join(f"'{choice}'" for choice in choices)
        raise InputError(f"'{name}' must be {listed}", param=name)
    return value


def parse_inputs(value: object, *, check_count: Callable[[int], None]) -> tuple[Inputs, bool]:
    """Read OpenAI's `input`: text, texts, token ids, or several arrays of token ids.

    Args:
        value: As parsed from JSON.
        check_count: Raises for too many inputs; asked first, so that a million items cost nothing.

    Returns:
        The inputs, and whether they were given as a list of inputs (a lone text or id array is one input).

    Raises:
        InputError: Anything else; names the item at fault.
    """
    if value is None:
        raise InputError("you must provide an input parameter", param="input")
    if isinstance(value, str):
        return [value], False
    if not isinstance(value, list):
        raise InputError(
            "'input' must be a string, a list of strings, or token ids",
            param="input",
            code="invalid_type",
        )
    if not value:
        raise InputError("'input' must not be an empty list", param="input")
    first = value[0]
    if as_integer(first) is not None:
        return [_parse_ids(value, None)], False
    check_count(len(value))
    if all(type(item) is str for item in value):
        return value, True
    if isinstance(first, list):
        return [_parse_ids(item, index) for index, item in enumerate(value)], True
    wrong = next(index for index, item in enumerate(value) if not isinstance(item, str))
    raise InputError(
        "each item of 'input' must be a string",
        param="input",
        input_index=wrong,
        code="invalid_type",
    )


def _typed_field(body: Body, name: str, kind: type[Value], described: str) -> Value | None:
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        raise InputError(f"'{name}' must be {described}", param=name, code="invalid_type")
    return value


def _parse_ids(value: object, index: int | None) -> list[int]:
    """One array of token ids; range checks come later, with the vocabulary."""
    where = "" if index is None else "each item of "
    if not isinstance(value, list) or not value:
        raise InputError(
            f"{where}'input' must be a list of at least one token id",
            param="input",
            input_index=index,
        )
    if set(map(type, value)) == {int} and min(value) >= 0:
        return value  # the usual case, without a Python step for each of up to 300,000 ids
    ids = [as_integer(item) for item in value]
    if any(number is None or number < 0 for number in ids):
        raise InputError(
            "token ids must be integers of 0 and more, and not be mixed with texts",
            param="input",
            input_index=index,
            code="invalid_type",
        )
    return [number for number in ids if number is not None]
