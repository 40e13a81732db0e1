"""Reads fields of a parsed body: null is absent, integral floats are integers, booleans and strings are not.

An optional field that holds the empty string is absent too, in every dialect and whatever its type: forms and templates
send it for what was left blank. Texts are no options: an empty one is a text.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from nestvec.api.requests.encoded_picture import EncodedInput
from nestvec.engine.dtypes import OFFERED, OutputDtype
from nestvec.engine.types import Truncation
from nestvec.errors import EmptyInputError, InputError, UnsupportedError

Value = TypeVar("Value", str, bool)
Body = Mapping[str, Any]
TextInputs = Sequence[str | Sequence[int]]
Inputs = Sequence[str | Sequence[int] | EncodedInput]
# Words of several vendors (Cohere, Jina, Voyage) for one role; the model's own prompt for that role is used.
PROMPT_ROLES: Final[Mapping[str, str]] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "nl2code.query": "query",
    "document": "passage",
    "passage": "passage",
    "search_document": "passage",
    "retrieval.passage": "passage",
    "nl2code.passage": "passage",
    "classification": "classify",
    "clustering": "cluster",
    "separation": "cluster",
    "text-matching": "similarity",
    "similarity": "similarity",
}
TRUNCATIONS: Final[Mapping[object, Truncation]] = {
    True: Truncation.END,
    False: Truncation.ERROR,
    "error": Truncation.ERROR,
    "none": Truncation.ERROR,
    "end": Truncation.END,
    "start": Truncation.START,
    "windows": Truncation.WINDOWS,
}
DTYPES: Final[Mapping[str, OutputDtype]] = {
    "float": OutputDtype.FLOAT32,
    **{dtype.value: dtype for dtype in OFFERED},
}
# Cohere's and Jina's types, of which a request may ask for several: the dtype, and whether it comes as base64, which
# holds float32 in both.
EMBEDDING_TYPES: Final[Mapping[str, tuple[OutputDtype, bool]]] = {
    "float": (OutputDtype.FLOAT32, False),
    "base64": (OutputDtype.FLOAT32, True),
    "float16": (OutputDtype.FLOAT16, False),
    "int8": (OutputDtype.INT8, False),
    "uint8": (OutputDtype.UINT8, False),
    "binary": (OutputDtype.BINARY, False),
    "ubinary": (OutputDtype.UBINARY, False),
}


def type_word(dtype: OutputDtype | None) -> str:
    """Return Cohere's and Jina's word for a dtype; "float" for None."""
    return "float" if dtype in (None, OutputDtype.FLOAT32) else dtype.value


def option(body: Body, name: str) -> Any:  # noqa: ANN401 - JSON is of any type
    """Return what an optional field holds; None where it is absent, null or the empty string."""
    value = body.get(name)
    return None if value == "" else value


def as_integer(value: object) -> int | None:
    """Return an int, or a float without a fraction as one; None for anything else, booleans included."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None


def as_integers(values: Sequence[object]) -> NDArray[np.int64] | None:
    """Return integers, and floats without a fraction, as an array; None for anything else, and beyond 64 bits."""
    kinds = set(map(type, values))
    try:
        if kinds <= {int}:
            return np.asarray(values, np.int64)
        if not kinds <= {int, float}:
            return None
        wide = np.asarray(values, np.float64)
    except OverflowError:
        return None
    with np.errstate(invalid="ignore"):
        whole = wide.astype(np.int64)
    return whole if (whole == wide).all() else None


def integer_field(body: Body, name: str) -> int | None:
    """Read an optional integer.

    Raises:
        InputError: The field holds something else.
    """
    value = option(body, name)
    if value is None:
        return None
    number = as_integer(value)
    if number is None:
        raise InputError(f"'{name}' must be an integer", param=name, code="invalid_type")
    return number


def text_field(body: Body, name: str) -> str | None:
    """Read an optional string, None for an empty one.

    Raises:
        InputError: The field holds something else.
    """
    return _typed_field(option(body, name), name, str, "a string")


def content_field(body: Body, name: str) -> str | None:
    """Read a text that is itself worked on, such as a query or a prompt; an empty one is a text.

    Raises:
        InputError: The field holds something else.
    """
    return _typed_field(body.get(name), name, str, "a string")


def boolean_field(body: Body, name: str) -> bool | None:
    """Read an optional boolean.

    Raises:
        InputError: The field holds something else.
    """
    return _typed_field(option(body, name), name, bool, "true or false")


def choice_field(body: Body, name: str, choices: Sequence[str]) -> str | None:
    """Read an optional string out of a few.

    Raises:
        InputError: The field holds something else; the message lists the choices.
    """
    value: str | None = option(body, name)
    if value is not None and value not in choices:
        listed = " or ".join(f"'{choice}'" for choice in choices)
        raise InputError(f"'{name}' must be {listed}", param=name)
    return value


def role_field(body: Body, names: Sequence[str]) -> str | None:
    """Read what the texts are for, in any vendor's word; an unknown word passes through, as a prompt's name.

    Args:
        body: As parsed from JSON.
        names: Fields that may say so; the first one that is there counts.

    Raises:
        InputError: The field holds no string.
    """
    for name in names:
        word = text_field(body, name)
        if word is not None:
            return PROMPT_ROLES.get(word.lower(), word)
    return None


def truncation_field(body: Body, name: str = "truncate") -> Truncation | None:
    """Read what is done with too-long inputs: a boolean, or a word in upper or lower case.

    Raises:
        InputError: The field holds something else.
    """
    value = option(body, name)
    if value is None:
        return None
    word = value.lower() if isinstance(value, str) else value
    if isinstance(word, bool | str) and word in TRUNCATIONS:
        return TRUNCATIONS[word]
    raise InputError(
        f"'{name}' must be true, false, 'error', 'start', 'end' or 'windows'", param=name
    )


def dtype_field(body: Body, name: str) -> OutputDtype | None:
    """Read the dtype that vectors are returned in.

    Raises:
        InputError: The field holds no word for a dtype.
    """
    word = choice_field(body, name, tuple(DTYPES))
    return None if word is None else DTYPES[word]


def invalid_item(name: str, index: int, rule: str) -> InputError:
    """Return the error for an item of a list that breaks the rule for all of them."""
    return InputError(
        f"each item of '{name}' {rule}", param=name, input_index=index, code="invalid_type"
    )


def unsupported_image(name: str, index: int | None = None) -> UnsupportedError:
    """Return the error for an image, where only texts are embedded."""
    return UnsupportedError(
        "images need a multimodal model, and the one here takes text",
        param=name,
        input_index=index,
    )


def texts_field(
    body: Body, name: str, *, check_count: Callable[[int], None], accepts_single: bool = True
) -> tuple[list[str], bool]:
    """Read a required list of texts, or a single text.

    Args:
        body: As parsed from JSON.
        name: The field.
        check_count: Raises for too many texts; called first, so that a million items cost nothing.
        accepts_single: Whether a single text may come bare.

    Returns:
        The texts, and whether they came as a list.

    Raises:
        InputError: The field holds something else; names the item at fault.
    """
    value = body.get(name)
    if value is None:
        raise InputError(f"you must provide '{name}'", param=name)
    if accepts_single and isinstance(value, str):
        return [value], False
    kinds = "a string or a list of strings" if accepts_single else "a list of strings"
    if not isinstance(value, list):
        raise InputError(f"'{name}' must be {kinds}", param=name, code="invalid_type")
    if not value:
        raise EmptyInputError(f"'{name}' must not be an empty list", param=name)
    check_count(len(value))
    wrong = next((i for i, item in enumerate(value) if not isinstance(item, str)), None)
    if wrong is not None:
        raise invalid_item(name, wrong, "must be a string")
    return value, True


def parse_inputs(value: object, *, check_count: Callable[[int], None]) -> tuple[Inputs, bool]:
    """Read OpenAI's `input`: text, texts, token ids, or several arrays of token ids.

    Args:
        value: As parsed from JSON, with encoded pictures for the objects that hold them.
        check_count: Raises for too many inputs; called first, so that a million items cost nothing.

    Returns:
        The inputs, and whether they came as a list of inputs (a lone text or id array is one input).

    Raises:
        InputError: The value is something else; names the item at fault.
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
        raise EmptyInputError("'input' must not be an empty list", param="input")
    first = value[0]
    if as_integer(first) is not None:
        return [_parse_ids(value, None)], False
    check_count(len(value))
    if all(type(item) is str for item in value):
        return value, True
    if isinstance(first, list):
        return [_parse_ids(item, index) for index, item in enumerate(value)], True
    wrong = next(
        (n for n, item in enumerate(value) if not isinstance(item, str | EncodedInput)), None
    )
    if wrong is None:
        return value, True
    raise invalid_item("input", wrong, "must be a string")


def parse_mixed_inputs(
    body: Body, name: str, *, check_count: Callable[[int], None]
) -> tuple[TextInputs, bool]:
    """Read TEI's inputs: a text, token ids, or a list in which each item may be either.

    Returns:
        The inputs, and whether they came as a list of inputs.

    Raises:
        InputError: The field holds something else; names the item at fault.
    """
    value = body.get(name)
    if not isinstance(value, list) or not value or all(isinstance(item, str) for item in value):
        return texts_field(body, name, check_count=check_count)
    if as_integer(value[0]) is not None:
        return [_parse_ids(value, None)], False
    check_count(len(value))
    return [
        item if isinstance(item, str) else _parse_ids(item, index)
        for index, item in enumerate(value)
    ], True


def parse_ids(body: Body, name: str, *, check_count: Callable[[int], None]) -> list[list[int]]:
    """Read a required list of arrays of token ids.

    Raises:
        InputError: The field holds something else; names the item at fault.
    """
    value = body.get(name)
    if not isinstance(value, list):
        raise InputError(f"'{name}' must be a list", param=name, code="invalid_type")
    check_count(len(value))
    return [_parse_ids(item, index) for index, item in enumerate(value)]


def _typed_field(value: Any, name: str, kind: type[Value], description: str) -> Value | None:  # noqa: ANN401 - JSON
    if value is not None and not isinstance(value, kind):
        raise InputError(f"'{name}' must be {description}", param=name, code="invalid_type")
    return value


def _parse_ids(value: object, index: int | None) -> list[int]:
    """Read one array of token ids; whether they are in the vocabulary is checked later."""
    where = "" if index is None else "each item of "
    if not isinstance(value, list) or not value:
        raise InputError(
            f"{where}'input' must be a list of at least one token id",
            param="input",
            input_index=index,
        )
    if set(map(type, value)) == {int} and min(value) >= 0:
        # The usual case, without a Python step for each of up to 300,000 ids.
        return value
    if isinstance(value[0], str) and all(isinstance(item, str) for item in value):
        raise InputError(
            f"{where}'input' must be a text or token ids, and a list of texts was sent: lists of texts must not be "
            'nested, so send ["a", "b"], not [["a", "b"]]',
            param="input",
            input_index=index,
            code="invalid_type",
        )
    ids = as_integers(value)
    if ids is None or (ids < 0).any():
        raise InputError(
            "token ids must be integers of 0 and more, and not be mixed with texts",
            param="input",
            input_index=index,
            code="invalid_type",
        )
    numbers: list[int] = ids.tolist()
    return numbers
