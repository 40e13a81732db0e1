"""Callers' keys: where a request carries one, what it lets them do, and what their answers say of it."""

import math
from collections.abc import Mapping

from fastapi import Request
from starlette.datastructures import Headers

from nestvec.engine.models.model_registry import VISIBLE
from nestvec.keys.buckets import Level
from nestvec.keys.keyring import EVERYONE, Keyring, Pass
from nestvec.keys.records import KeyLimits

MINUTE_S = 60


def let_in(request: Request, keys: Keyring) -> str:
    """Check a request's key, count the request, and note whose it is; gives the key's id, "" where none is asked for.

    From then on the request sees the models that the key may use, and no others.

    Raises:
        AccessError: No key, or a wrong one.
        RateLimitError: The key has used up what it may ask for.
    """
    found = keys.enter(given_key(request.headers))
    request.state.key_pass = found
    keys.check_requests(found)
    see_models_of(found.limits)
    return found.key_id


def see_models_of(limits: KeyLimits) -> None:
    """Let the running task, and those that it starts, see the models that a key may use, and no others."""
    if limits.models:
        VISIBLE.set(frozenset(name.casefold() for name in limits.models))


def pass_of(request: Request) -> Pass:
    """What the request's key lets it do."""
    found = getattr(request.state, "key_pass", EVERYONE)
    return found if isinstance(found, Pass) else EVERYONE


def given_key(headers: Headers) -> str:
    """The key a request carries, "" for none; the scheme word is matched in any case."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    found = credentials.strip() if scheme.lower() == "bearer" else ""
    found = found or headers.get("api-key", "") or headers.get("x-api-key", "")
    # Header values arrive decoded as Latin-1; this gives back what was sent.
    return found.encode("latin-1", "replace").decode("utf-8", "replace")


def rate_headers(found: Pass, keys: Keyring) -> Mapping[str, str]:
    """What is left of a key's rates, as OpenAI's clients and the IETF's draft (RateLimit header fields 8) have it."""
    levels: dict[str, tuple[Level, int]] = {}
    if found.requests is not None:
        levels["requests"] = found.requests, 1
    if (tokens := keys.tokens_left(found.key_id, found.limits)) is not None:
        levels["tokens"] = tokens, MINUTE_S
    if not levels:
        return {}
    headers = {}
    for name, (level, _) in levels.items():
        headers[f"x-ratelimit-limit-{name}"] = str(math.ceil(level.limit))
        headers[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(level.left)))
        headers[f"x-ratelimit-reset-{name}"] = duration(level.reset_s)
    headers["ratelimit-policy"] = ", ".join(
        f'"{name}";q={math.ceil(level.limit)};w={window}'
        for name, (level, window) in levels.items()
    )
    headers["ratelimit"] = ", ".join(
        f'"{name}";r={max(0, math.floor(level.left))};t={math.ceil(level.reset_s)}'
        for name, (level, _) in levels.items()
    )
    return headers


def duration(seconds: float) -> str:
    """Seconds as OpenAI's headers have them: 120ms, 1s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    return f"{whole}s" if whole < MINUTE_S else f"{whole // MINUTE_S}m{whole % MINUTE_S}s"
