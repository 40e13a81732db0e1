"""Reads our own extensions of what inputs are and give: groups and weights, context, several kinds of output."""

from typing import Final

from typing_extensions import TypedDict

from nestvec.api.requests.fields import Body, as_integer, invalid_item, option
from nestvec.engine.outputs.context import CONTEXT
from nestvec.engine.outputs.joint import JOINT, TAGS
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.groups import GROUPS, WEIGHTS
from nestvec.errors import InputError

OUTPUT_TYPES: Final = "output_types"
FIELDS: Final = frozenset({OUTPUT_TYPES, GROUPS, WEIGHTS, CONTEXT})
# What says nothing, as a field that is left blank does.
NOTHING: Final[tuple[object, ...]] = (None, [], {})


class Composition(TypedDict, total=False):
    """Options of a call that say how its inputs make vectors; those that a body does not name are missing."""

    kind: OutputKind
    groups: tuple[int, ...]
    weights: tuple[float, ...]
    context: tuple[str, ...]


def parse_composition(body: Body, inputs: int) -> Composition:
    """Read all of our extensions of what inputs are and give, of which most bodies have none.

    Args:
        body: As parsed from JSON.
        inputs: How many inputs there are.

    Raises:
        InputError: A field holds something else than it may; names the item at fault.
    """
    if FIELDS.isdisjoint(body):
        return {}
    groups, weights = parse_groups(body)
    return {
        "kind": parse_outputs(body),
        "groups": groups,
        "weights": weights,
        "context": parse_context(body, inputs),
    }


def parse_groups(body: Body) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Read `groups` and `weights`; whether they fit the inputs is checked later.

    Returns:
        The size of each group and the weight of each input; empty where there are none.

    Raises:
        InputError: A field holds something else, or there are weights and no groups; names the item at fault.
    """
    sizes, weights = option(body, GROUPS), option(body, WEIGHTS)
    if sizes in NOTHING:
        if weights in NOTHING:
            return (), ()
        raise InputError(
            f"'{WEIGHTS}' goes with '{GROUPS}': send how many inputs make a vector together",
            param=WEIGHTS,
        )
    return _sizes(sizes), () if weights in NOTHING else _weights(weights)


def parse_context(body: Body, inputs: int) -> tuple[str, ...]:
    """Read `context`: a text for each input, or one for all; an empty one is none.

    Args:
        body: As parsed from JSON.
        inputs: How many inputs there are.

    Raises:
        InputError: The field holds something else; names the item at fault.
    """
    value = option(body, CONTEXT)
    if value in NOTHING:
        return ()
    if isinstance(value, str):
        return (value,) * inputs
    if not isinstance(value, list):
        raise InputError(
            f"'{CONTEXT}' must be a string or a list of strings", param=CONTEXT, code="invalid_type"
        )
    wrong = next((index for index, text in enumerate(value) if not isinstance(text, str)), None)
    if wrong is not None:
        raise invalid_item(CONTEXT, wrong, "must be a string")
    return tuple(value) if any(value) else ()


def parse_outputs(body: Body) -> OutputKind:
    """Read `output_types`, the kinds of output that one run is to give; dense vectors by default.

    Raises:
        InputError: The field holds something else than a list of some of the kinds.
    """
    value = option(body, OUTPUT_TYPES)
    if value in NOTHING:
        return OutputKind.DENSE
    known = tuple(TAGS)
    words = value if isinstance(value, list) and len(value) <= len(known) else [None]
    if not all(isinstance(word, str) and word in known for word in words):
        raise InputError(
            f"'{OUTPUT_TYPES}' must be a list of some of {', '.join(known)}", param=OUTPUT_TYPES
        )
    return OutputKind(JOINT.join(kind for kind in known if kind in words))


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise InputError(
            f"'{GROUPS}' must be a list of integers", param=GROUPS, code="invalid_type"
        )
    sizes = []
    for index, item in enumerate(value):
        size = as_integer(item)
        if size is None:
            raise invalid_item(GROUPS, index, "must be an integer")
        sizes.append(size)
    return tuple(sizes)


def _weights(value: object) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise InputError(
            f"'{WEIGHTS}' must be a list of numbers", param=WEIGHTS, code="invalid_type"
        )
    weights = []
    for index, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise invalid_item(WEIGHTS, index, "must be a number")
        weights.append(float(item))
    return tuple(weights)
