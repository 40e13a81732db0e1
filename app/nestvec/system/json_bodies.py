"""JSON that callers send, in bodies and in files: strict, and within bounds."""

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from nestvec.errors import BodyFormatError
from nestvec.system.unicode import replace_lone_surrogates

# Parsing blocks every thread of the process: 50 ns a value and 150 ns an object or list (Xeon, orjson 3.13), so 20 ms.
MAX_COST: Final = 400_000
CONTAINER_COST: Final = 3
QUOTE, BACKSLASH, COMMA = b'"\\,'
OPENERS: Final = b"[{"


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """Bounds of the JSON that callers send.

    Attributes:
        max_depth: How deeply lists and objects may be nested.
    """

    max_depth: int = 32


def parse_json(body: bytes, limits: JsonLimits | None = None) -> Any:  # noqa: ANN401 - JSON is of any type
    """Parse strict JSON: no NaN, no infinity; lone surrogates become U+FFFD.

    Args:
        body: The JSON, in UTF-8.
        limits: Bounds of it; None for files of our own.

    Raises:
        BodyFormatError: The body is not JSON, or nested too deeply.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        problem = f"We could not parse the JSON body of your request: {error.msg}"
        value = _parse_leniently(body, problem)
    if limits is not None and _may_be_deeper(body, limits.max_depth):
        _check_depth(value, limits.max_depth)
    return value


def check_cost(body: bytes) -> None:
    """Refuse JSON of so many values that parsing it would block everybody; the check itself runs beside other threads.

    Raises:
        BodyFormatError: The body has too many values.
    """
    # Text is mostly letters: a count that takes commas inside strings for values is enough for most.
    if _cost(body.count(b","), body.count(b"[") + body.count(b"{")) <= MAX_COST:
        return
    values = np.frombuffer(body, np.uint8)
    is_outside = ~_inside_strings(values)
    commas = int(np.count_nonzero(is_outside & (values == COMMA)))
    containers = sum(int(np.count_nonzero(is_outside & (values == char))) for char in OPENERS)
    if _cost(commas, containers) > MAX_COST:
        raise BodyFormatError(
            f"the body holds {commas + 1} values in {containers} lists and objects; send fewer inputs a request",
            param="input",
            code="request_too_large",
        )


def _cost(values: int, containers: int) -> int:
    return values + CONTAINER_COST * containers


def _inside_strings(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which bytes of JSON are inside strings: behind an odd number of quotes that no backslash escapes."""
    quotes = values == QUOTE
    slashes = np.flatnonzero(values == BACKSLASH)
    if len(slashes):
        # A run of backslashes escapes what follows if it is of odd length.
        ends = np.flatnonzero(np.diff(slashes, append=slashes[-1] + 2) != 1)
        lengths = np.diff(ends, prepend=-1)
        behind = slashes[ends[lengths % 2 == 1]] + 1
        quotes[behind[behind < len(quotes)]] = False
    inside: NDArray[np.bool_] = np.logical_xor.accumulate(quotes)
    return inside


def _may_be_deeper(body: bytes, depth: int) -> bool:
    """Whether a body has enough brackets to be nested more deeply."""
    return body.count(b"[") + body.count(b"{") > depth


def _check_depth(value: Any, max_depth: int) -> None:  # noqa: ANN401 - JSON is of any type
    """Refuse a value whose lists and objects are nested more deeply than `max_depth`.

    Raises:
        BodyFormatError: The value is.
    """
    level = [value]
    for _ in range(max_depth + 1):
        below: list[Any] = []
        for item in level:
            inner = item.values() if type(item) is dict else item if type(item) is list else ()
            below += [x for x in inner if type(x) is dict or type(x) is list]
        if not below:
            return
        level = below
    raise BodyFormatError(f"the body is nested more than {max_depth} deep")


def _parse_leniently(body: bytes, problem: str) -> Any:  # noqa: ANN401 - JSON is of any type
    """Parse what orjson refuses but we accept: lone surrogates, a byte order mark, integers beyond 64 bits."""
    try:
        parsed = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
        return _without_surrogates(parsed)
    except UnicodeDecodeError:
        raise BodyFormatError("the body is not valid UTF-8") from None
    except RecursionError:
        raise BodyFormatError("the body is nested too deeply") from None
    except ValueError:
        raise BodyFormatError(problem) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _without_surrogates(value: Any) -> Any:  # noqa: ANN401 - JSON is of any type
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value
