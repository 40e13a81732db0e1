"""What the routes of files and of batches share: single objects, pages of them, and how long one is kept."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from fastapi import Request, Response

from nestvec.api.http.auth import authenticate
from nestvec.api.http.raw_route import json_response
from nestvec.api.requests.fields import as_integer
from nestvec.api.state import ApiState, api_state
from nestvec.errors import InputError
from nestvec.jobs.store import JobStore
from nestvec.jobs.types import DAY_S

T = TypeVar("T")

MIN_LIFETIME_S: Final = 3600
MAX_LIFETIME_S: Final = 30 * DAY_S


def authenticated_state(request: Request) -> tuple[ApiState, str]:
    """Check a request's key.

    Returns:
        The application's state, and the key's id, which owns what the request makes and is all that it sees.

    Raises:
        AccessError: No key, or a wrong one.
        RateLimitError: The key has used up what it may ask for.
    """
    state = api_state(request)
    return state, authenticate(request, state.keys)


async def object_response(
    state: ApiState, find: Callable[[JobStore], T], describe: Callable[[T], dict[str, Any]]
) -> Response:
    """Answer with one object of the store.

    Args:
        state: The application's shared state.
        find: Gets the object, off the event loop.
        describe: Turns it into what the answer holds.

    Raises:
        NotFoundError: The key has no such object.
        StoreError: The store cannot be read.
    """
    return json_response(describe(await state.jobs.call(find)))


async def page_response(
    state: ApiState,
    find: Callable[[JobStore], tuple[list[T], bool]],
    describe: Callable[[T], dict[str, Any]],
) -> Response:
    """Answer with a page of objects; clients page on until `has_more` is false.

    Args:
        state: The application's shared state.
        find: Gets the objects, off the event loop, and whether there are more behind them.
        describe: Turns each into what the answer holds.

    Raises:
        NotFoundError: The object after which the page begins is not there.
        StoreError: The store cannot be read.
    """
    rows, has_more = await state.jobs.call(find)
    data = [describe(row) for row in rows]
    return json_response(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": has_more,
        }
    )


def page_limit(query: Mapping[str, str], max_items: int, *, default: int) -> int:
    """Read how many objects a page is to have.

    Raises:
        InputError: The parameter is not an integer from 1 to `max_items`.
    """
    limit = query.get("limit")
    if limit is None:
        return default
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= max_items):
        raise InputError(f"'limit' must be 1 to {max_items}", param="limit")
    return int(limit)


def lifetime_s(anchor: object, seconds: object, param: str) -> int | None:
    """Read how long something is kept, in seconds; None where the request does not say.

    Args:
        anchor: The point in time that the seconds are counted from; only "created_at" is known.
        seconds: An integer.
        param: The field that holds both, for errors.

    Raises:
        InputError: The anchor is unknown, or the time is out of bounds.
    """
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InputError(f"'{param}.anchor' must be 'created_at'", param=f"{param}.anchor")
    number = as_integer(seconds)
    if number is None or not MIN_LIFETIME_S <= number <= MAX_LIFETIME_S:
        raise InputError(
            f"'{param}.seconds' must be {MIN_LIFETIME_S} to {MAX_LIFETIME_S}",
            param=f"{param}.seconds",
        )
    return number
