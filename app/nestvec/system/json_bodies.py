"""JSON that callers send, in bodies and in files: strict, and within bounds.

Parsing keeps every thread of the process waiting, as orjson holds Python's lock. So the values of long JSON are counted
before it is parsed, in slices between which other threads run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from nestvec.errors import BodyFormatError

# Parsing blocks every thread of the process: 50 ns a value, 150 ns an object or list, 100 ns a key (Xeon, orjson 3.13),
# so 20 ms.
MAX_COST: Final = 400_000
CONTAINER_COST: Final = 3
KEY_COST: Final = 2
# JSON of this length is parsed as it is, whatever it holds: 9 ms if it is all of empty lists.
SMALL_BYTES: Final = 64 * 1024
# JSON of this length is looked at where it arrives; what is longer, or holds more values than this, in a thread.
MEDIUM_BYTES: Final = 1024 * 1024
MEDIUM_COST: Final = 40_000
# Beyond so many lists and objects their depth is found by numpy, in slices.
MANY_CONTAINERS: Final = 4096
# A slice is looked at in less than 10 ms, with some 30 MiB of intermediate results.
SLICE_BYTES: Final = 1024 * 1024
QUOTE, BACKSLASH, COMMA, COLON, SPACE = b'"\\,: '
OPENERS: Final = b"[{"
CLOSERS: Final = b"]}"
BOM: Final = b"\xef\xbb\xbf"
# An escape of six bytes, `\uD83D`: two of them in a row are a character where the first is high and the second low.
ESCAPE_BYTES: Final = 6
HIGH_DIGITS: Final = np.frombuffer(b"89abAB", np.uint8)
LOW_DIGITS: Final = np.frombuffer(b"cdefCDEF", np.uint8)
REPLACEMENT: Final = np.frombuffer(b"fffd", np.uint8)


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """Bounds of the JSON that callers send.

    Attributes:
        max_depth: How deeply lists and objects may be nested.
    """

    max_depth: int = 32


@dataclass(frozen=True, slots=True)
class JsonSlice:
    """A part of JSON with what is needed to tell what its bytes mean.

    Attributes:
        start: Where it begins in the whole.
        values: Its bytes, (n,), uint8; a first byte that an escape in the slice before stands for is a space.
        escapes: Where a backslash begins an escape of something other than a backslash, as indices into the slice.
    """

    start: int
    values: NDArray[np.uint8]
    escapes: NDArray[np.int64]


def parse_json(body: bytes | bytearray, limits: JsonLimits | None = None) -> Any:  # noqa: ANN401 - JSON is of any type
    """Parse strict JSON: no NaN, no infinity; lone surrogates become U+FFFD, a byte order mark is skipped.

    Args:
        body: The JSON, in UTF-8.
        limits: Bounds of it; None for files of our own.

    Raises:
        BodyFormatError: The body is not JSON, nested too deeply, or of too many values.
    """
    if limits is not None and len(body) > SMALL_BYTES:
        check_bounds(body, limits)
        limits = limits if count_containers(body) <= MANY_CONTAINERS else None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        value = _parse_mended(body, error)
    if limits is not None and count_containers(body) > limits.max_depth:
        _check_depth(value, limits.max_depth)
    return value


def is_quickly_parsed(body: bytes | bytearray) -> bool:
    """Return whether JSON is parsed in so little time that it may be done on the event loop."""
    if len(body) <= SMALL_BYTES:
        return True
    if len(body) > MEDIUM_BYTES:
        return False
    return _highest_cost(body) <= MEDIUM_COST


def count_containers(body: bytes | bytearray) -> int:
    """Count the brackets that open lists and objects, those inside strings too."""
    return _count(body, b"[") + _count(body, b"{")


def check_bounds(body: bytes | bytearray, limits: JsonLimits) -> None:
    """Refuse JSON of so many values that parsing it would block everybody, or that is nested too deeply.

    Depth is checked only where there are many lists and objects; `parse_json` looks at the others.

    Args:
        body: The JSON.
        limits: Bounds of its depth.

    Raises:
        BodyFormatError: The body has too many values, or is nested too deeply.
    """
    # Text is mostly letters: a count that takes commas inside strings for values is enough for most.
    if count_containers(body) <= MANY_CONTAINERS and _highest_cost(body) <= MAX_COST:
        return
    cost, depth, is_inside = 0, 0, False
    for part in _slices(body):
        values = part.values
        quotes = values == QUOTE
        behind = part.escapes + 1
        quotes[behind[behind < len(quotes)]] = False
        inside = np.logical_xor.accumulate(quotes) ^ is_inside
        is_inside = bool(inside[-1])
        values[inside] = SPACE
        openers = (values == OPENERS[0]) | (values == OPENERS[1])
        closers = (values == CLOSERS[0]) | (values == CLOSERS[1])
        kinds = (values == COMMA, values == COLON, openers)
        cost += _cost(*(int(np.count_nonzero(is_kind)) for is_kind in kinds))
        if cost > MAX_COST:
            raise BodyFormatError(
                f"the body holds over {MAX_COST} values, where a list or an object counts as {CONTAINER_COST} and a "
                f"key as {KEY_COST}; send fewer inputs a request",
                param="input",
                code="request_too_large",
            )
        depths = depth + np.cumsum(openers.astype(np.int32) - closers.astype(np.int32))
        if int(depths.max()) > limits.max_depth + 1:
            raise _too_deep(limits.max_depth)
        depth = int(depths[-1])


def _highest_cost(body: bytes | bytearray) -> int:
    """Return the cost of parsing JSON if none of it were inside strings."""
    return _cost(_count(body, b","), _count(body, b":"), count_containers(body))


def _cost(values: int, keys: int, containers: int) -> int:
    return values + KEY_COST * keys + CONTAINER_COST * containers


def _count(body: bytes | bytearray, byte: bytes) -> int:
    """Count a byte, in slices: a search in the whole, which holds Python's lock, may take 30 ms for 10 MB."""
    if len(body) <= SLICE_BYTES:
        return body.count(byte)
    return sum(
        body.count(byte, start, start + SLICE_BYTES) for start in range(0, len(body), SLICE_BYTES)
    )


def _contains(body: bytes | bytearray, part: bytes) -> bool:
    """Return whether some bytes are in JSON, searched in slices that overlap by what a match may lack of its end."""
    reach = SLICE_BYTES + len(part) - 1
    return any(
        body.find(part, start, start + reach) >= 0 for start in range(0, len(body), SLICE_BYTES)
    )


def _slices(body: bytes | bytearray) -> Iterator[JsonSlice]:
    """Yield JSON in slices; between two of them other threads run."""
    view = memoryview(body)
    is_escaped = False
    for start in range(0, len(body), SLICE_BYTES):
        values = np.array(np.frombuffer(view[start : start + SLICE_BYTES], np.uint8))
        if is_escaped:
            values[0] = SPACE
        escapes = slashes = np.flatnonzero(values == BACKSLASH)
        if len(slashes):
            # A run of backslashes escapes what follows if it is of odd length.
            ends = np.flatnonzero(np.diff(slashes, append=slashes[-1] + 2) != 1)
            lengths = np.diff(ends, prepend=-1)
            escapes = slashes[ends[lengths % 2 == 1]]
        is_escaped = bool(len(escapes)) and int(escapes[-1]) == len(values) - 1
        yield JsonSlice(start, values, escapes)


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
    raise _too_deep(max_depth)


def _too_deep(max_depth: int) -> BodyFormatError:
    return BodyFormatError(f"the body is nested more than {max_depth} deep")


def _parse_mended(body: bytes | bytearray, error: orjson.JSONDecodeError) -> Any:  # noqa: ANN401 - JSON is of any type
    """Parse what orjson refuses but we accept: a byte order mark, and escapes of lone surrogates.

    Args:
        body: What orjson refused.
        error: Why it did.

    Raises:
        BodyFormatError: Neither is what was wrong.
    """
    plain = body.removeprefix(BOM) if body.startswith(BOM) else body
    mended = replace_surrogate_escapes(plain)
    if mended is not body:
        try:
            return orjson.loads(mended)
        except orjson.JSONDecodeError as remaining:
            error = remaining
    raise BodyFormatError(
        f"We could not parse the JSON body of your request: {error.msg} (at character {error.pos})"
    ) from None


def replace_surrogate_escapes(body: bytes | bytearray) -> bytes | bytearray:
    r"""Replace JSON's escapes of lone surrogates, such as `\ud800`, by that of U+FFFD.

    Args:
        body: The JSON.

    Returns:
        The same object where there is nothing to replace.
    """
    if not _contains(body, b"\\ud") and not _contains(body, b"\\uD"):
        return body
    mended = bytearray(body)
    whole = np.frombuffer(mended, np.uint8)
    # Escapes of high surrogates that the low one at the beginning of the next slice may belong to.
    last_high = -ESCAPE_BYTES
    for part in _slices(body):
        at = part.escapes + part.start
        at = at[at <= len(body) - ESCAPE_BYTES]
        at = at[(whole[at + 1] == ord("u")) & ((whole[at + 2] | 0x20) == ord("d"))]
        digits = whole[at + 3]
        highs, lows = at[np.isin(digits, HIGH_DIGITS)], at[np.isin(digits, LOW_DIGITS)]
        before = np.append(highs, last_high)
        is_paired_low = np.isin(lows - ESCAPE_BYTES, before, assume_unique=True)
        lone = np.append(lows[~is_paired_low], highs[~_has_low(whole, highs + ESCAPE_BYTES)])
        last_high = int(before[:-1][-1]) if len(highs) else last_high
        for offset, byte in enumerate(REPLACEMENT):
            whole[lone + 2 + offset] = byte
    return mended


def _has_low(body: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.bool_]:
    r"""Return at which places behind an escape another one begins that is of a low surrogate, such as `\udc00`."""
    is_low = at <= len(body) - ESCAPE_BYTES
    here = at[is_low]
    is_low[is_low] = (
        (body[here] == BACKSLASH)
        & (body[here + 1] == ord("u"))
        & ((body[here + 2] | 0x20) == ord("d"))
        & np.isin(body[here + 3], LOW_DIGITS)
    )
    return is_low
