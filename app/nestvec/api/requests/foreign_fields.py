"""Fields that a dialect does not know: refused where ignoring one would give other vectors, else ignored and named."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from nestvec.api.dialect_table import Dialect
from nestvec.api.requests.fields import option
from nestvec.api.requests.vector_fields import (
    OPTION_OBJECTS,
    VECTOR_FIELDS,
    VENDORS_WORDS,
    changes_nothing,
)
from nestvec.api.state import ApiState
from nestvec.errors import InputError

# In shorter names one edit makes another word.
MIN_EDITED_CHARS: Final = 5
MAX_NAME_CHARS: Final = 100
# Fields beyond so many unknown ones are not compared with ours: it takes some 50 us each.
MAX_SLIPS: Final = 32
# No client sends so many by mistake, and each is looked at.
MAX_UNKNOWN: Final = 32 * 1024
# Names that callers make up need not be remembered for ever.
REMEMBERED_NAMES: Final = 1024
NO_OBJECTS: Final[Mapping[str, frozenset[str]]] = MappingProxyType({})


def check_fields(
    body: Mapping[str, Any],
    known: frozenset[str],
    state: ApiState,
    dialect: Dialect,
    inside: Mapping[str, frozenset[str]] = NO_OBJECTS,
) -> tuple[str, ...]:
    """Refuse unknown fields that would change vectors, slips of known ones, and all of them where the operator says so.

    Args:
        body: As parsed from JSON.
        known: The fields that the route reads or may safely ignore.
        state: Whose options say whether unknown fields are refused, and whose metrics count those that are ignored.
        dialect: Named in the message.
        inside: The same of objects in the body, by their fields' names; nothing is read of other objects of options.

    Returns:
        The fields that are ignored, sorted; nulls and empty strings are absent, and those inside an object are
        `object.field`.

    Raises:
        InputError: A field is refused; the first one is named.
    """
    nested = _check_objects(body, known, state, inside)
    if nested:
        state.metrics.http.ignored_fields.inc(len(nested))
    if body.keys() <= known:
        return nested
    others = body.keys() - known
    if len(others) > MAX_UNKNOWN:
        raise InputError(
            f"the body has {len(others)} fields that this route does not know, max {MAX_UNKNOWN}",
            code="unknown_field",
        )
    unknown = sorted(others)
    if state.options.reject_unknown_fields:
        raise _unknown(unknown[0], slip_of(unknown[0], known))
    unknown = [name for name in unknown if option(body, name) is not None]
    for name in unknown:
        if name in VECTOR_FIELDS and not changes_nothing(name, body[name]):
            place = next((place for place, names in inside.items() if name in names), None)
            raise _unknown(name, f"{place}.{name}") if place else _foreign(name, name, dialect)
    ignored = [name for name in unknown if name not in VECTOR_FIELDS]
    for name in ignored[:MAX_SLIPS]:
        meant = slip_of(name, known)
        if meant in known:
            raise _unknown(name, meant)
        if meant is not None and not changes_nothing(meant, body[name]):
            raise _foreign(name, meant, dialect)
    state.metrics.http.ignored_fields.inc(len(ignored))
    return (*ignored, *nested)


def _check_objects(
    body: Mapping[str, Any],
    known: frozenset[str],
    state: ApiState,
    inside: Mapping[str, frozenset[str]],
) -> tuple[str, ...]:
    """Check the objects of a body that hold options, or fields that the route reads."""
    ignored: list[str] = []
    for name in (*OPTION_OBJECTS, *(name for name in inside if name not in OPTION_OBJECTS)):
        if name in body and isinstance(body[name], dict):
            ignored += _check_object(name, body[name], known, state, inside.get(name, frozenset()))
    return tuple(ignored)


def _check_object(
    place: str,
    content: Mapping[str, Any],
    outer: frozenset[str],
    state: ApiState,
    known: frozenset[str],
) -> list[str]:
    """Refuse what an object of options says of vectors and is not read there.

    Returns:
        The fields that are ignored; none where the object itself is unknown, as it is named then.

    Raises:
        InputError: A field is refused; the first one is named.
    """
    unknown = sorted(name for name in content if name not in known and content[name] is not None)
    if unknown and place in outer and state.options.reject_unknown_fields:
        raise _unknown(f"{place}.{unknown[0]}", None)
    reads = frozenset(known & VECTOR_FIELDS.keys())
    for number, name in enumerate(unknown):
        meant = name if name in VECTOR_FIELDS else None
        if meant is None and number < MAX_SLIPS:
            meant = slip_of(name, reads)
        if meant is None:
            continue
        if meant in reads:
            raise _unknown(f"{place}.{name}", f"{place}.{meant}")
        if not changes_nothing(meant, content[name]):
            raise _misplaced(place, name, is_read_beside=meant in outer)
    if place not in outer:
        return []
    return [f"{place}.{name}" for name in unknown if name not in VECTOR_FIELDS]


@lru_cache(REMEMBERED_NAMES)
def slip_of(name: str, known: frozenset[str]) -> str | None:
    """Return the field that a name is a slip of: its case, underscores or plural, or one edit; None for none.

    Args:
        name: The name of an unknown field.
        known: The fields that the route knows; they are looked at before the fields of other dialects.
    """
    if name in VENDORS_WORDS or len(name) > MAX_NAME_CHARS:
        return None
    others = sorted(VECTOR_FIELDS.keys() - known)
    for candidates in (sorted(known), others):
        same = (field for field in candidates if _stem(field) == _stem(name))
        edited = (field for field in candidates if _is_one_edit(_plain(field), _plain(name)))
        if (field := next(same, None) or next(edited, None)) is not None:
            return field
    return None


def header_value(names: Iterable[str]) -> str:
    """Return names of ignored fields as a header may hold them: sixteen at most, of letters, digits and `_.-`."""
    first = sorted(names)[:16]
    return ",".join(
        "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "?" for c in name[:40])
        for name in first
    )


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in "_-. ")


def _stem(name: str) -> str:
    return _plain(name).removesuffix("s")


def _is_one_edit(first: str, second: str) -> bool:
    """Whether a letter was left out, added or replaced, or two neighbours swapped."""
    short, long = sorted((first, second), key=len)
    if len(short) < MIN_EDITED_CHARS - 1 or len(long) < MIN_EDITED_CHARS:
        return False
    if len(long) - len(short) > 1 or short == long:
        return False
    at = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return short[at:] == long[at + 1 :]
    is_swap = short[at : at + 2] == long[at : at + 2][::-1] and short[at + 2 :] == long[at + 2 :]
    return short[at + 1 :] == long[at + 1 :] or is_swap


def _unknown(name: str, meant: str | None) -> InputError:
    shown = name[:MAX_NAME_CHARS]
    hint = "" if meant is None else f"; did you mean '{meant}'?"
    return InputError(f"unknown field '{shown}'{hint}", param=shown, code="unknown_field")


def _misplaced(place: str, name: str, *, is_read_beside: bool) -> InputError:
    """Return the error for a field that is not read inside an object."""
    shown = f"{place}.{name}"[:MAX_NAME_CHARS]
    hint = f"; give it beside `{place}`" if is_read_beside else ""
    return InputError(
        f"`{shown}` is not read, and ignoring it would give other vectors than you ask for{hint}",
        param=shown,
        code="foreign_field",
    )


def _foreign(name: str, meant: str, dialect: Dialect) -> InputError:
    """Return the error for a field that is, or looks like, one that another dialect has."""
    shown = name[:MAX_NAME_CHARS]
    what = "is" if name == meant else f"looks like `{meant}`,"
    return InputError(
        f"`{shown}` {what} a field of another dialect than this request's ({dialect.title}), "
        "and ignoring it would give other vectors than you ask for",
        param=shown,
        code="foreign_field",
    )
