"""Callers' keys: where a request carries one, what it allows, and what answers say of its rate limits."""

import math
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import Scope

from nestvec.engine.models.model_registry import visible_models
from nestvec.errors import ForbiddenError
from nestvec.keys.buckets import BucketLevel
from nestvec.keys.keyring import ANONYMOUS, KeyGrant, Keyring
from nestvec.keys.records import KeyLimits

MINUTE_S: Final = 60
# Beside `authorization`: Azure's, Anthropic's and many others', Google's.
KEY_HEADERS: Final = ("api-key", "x-api-key", "x-goog-api-key")
GOOGLE_PREFIX: Final = "/v1beta/"
GOOGLE_METHODS: Final = (":embedContent", ":batchEmbedContents")
# Where in the scope of a request stands what is left of its key's rate of requests, if servers share that.
SHARED_REQUESTS: Final = "nestvec.shared_requests"


def authenticate(request: Request, keys: Keyring) -> str:
    """Check a request's key, count the request, and note on it what the key grants.

    From then on the request sees the models that the key may use, and no others.

    Returns:
        The key's id; "" where the server asks for none.

    Raises:
        AccessError: No key, or a wrong one.
        RateLimitError: The key has used up what it may ask for.
        NotReadyError: The keys cannot be read.
    """
    shared = request.scope.get(SHARED_REQUESTS)
    grant = keys.authenticate(api_key_of(request.headers), shared)
    request.state.key_grant = grant
    keys.check_requests(grant)
    restrict_models(grant.limits)
    return grant.key_id


def authenticate_admin(request: Request, keys: Keyring) -> str:
    """Check a request's key as `authenticate` does, and that it may use the routes for operators.

    Returns:
        The key's id; "" where the server asks for none.

    Raises:
        AccessError: No key, or a wrong one.
        ForbiddenError: The key is no operator's.
        RateLimitError: The key has used up what it may ask for.
    """
    key_id = authenticate(request, keys)
    if not grant_of(request).is_admin:
        raise ForbiddenError(
            "This API key has no admin right: an operator gives it with 'nestvec keys add --admin' or admin_keys."
        )
    return key_id


def restrict_models(limits: KeyLimits) -> None:
    """Let the running task, and the tasks that it starts, see the models that a key may use, and no others."""
    if limits.models:
        visible_models.set(frozenset(name.casefold() for name in limits.models))


def grant_of(request: Request) -> KeyGrant:
    """Return what the request's key allows; without a key, what anybody may do."""
    grant = getattr(request.state, "key_grant", ANONYMOUS)
    return grant if isinstance(grant, KeyGrant) else ANONYMOUS


def take_query_key(scope: Scope) -> None:
    """Move the key that Google's older clients send as `?key=` into a header, so that nothing sees it in the URL.

    Only on the paths of Gemini's API; a key that is in a header already wins.
    """
    query, path = scope["query_string"], scope["path"]
    if b"key=" not in query or not (GOOGLE_PREFIX in path or path.endswith(GOOGLE_METHODS)):
        return
    fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    scope["query_string"] = urlencode([field for field in fields if field[0] != "key"]).encode()
    keys = [value for name, value in fields if name == "key"]
    # What is in a header wins: the first of a name counts.
    scope["headers"] = [*scope["headers"], *((b"x-goog-api-key", key.encode()) for key in keys)]


def api_key_of(headers: Headers) -> str:
    """Return the key that a request carries, "" for none; "Bearer" is matched in upper or lower case."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    key = credentials.strip() if scheme.lower() == "bearer" else ""
    for name in KEY_HEADERS:
        key = key or headers.get(name, "")
    # Header values arrive decoded as Latin-1; this gives back what was sent.
    return key.encode("latin-1", "replace").decode("utf-8", "replace")


def rate_limit_headers(grant: KeyGrant, keys: Keyring) -> Mapping[str, str]:
    """Return what is left of a key's rates, in the headers of OpenAI and of the IETF.

    The IETF's are those of draft-ietf-httpapi-ratelimit-headers-08. A key without limits has none.
    """
    levels: dict[str, tuple[BucketLevel, int]] = {}
    if grant.requests is not None:
        levels["requests"] = grant.requests, 1
    if (tokens := keys.rates.tokens_left(grant.key_id, grant.limits)) is not None:
        levels["tokens"] = tokens, MINUTE_S
    if not levels:
        return {}
    headers = {}
    for name, (level, _) in levels.items():
        headers[f"x-ratelimit-limit-{name}"] = str(math.ceil(level.limit))
        headers[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(level.left)))
        headers[f"x-ratelimit-reset-{name}"] = format_duration(level.reset_s)
    headers["ratelimit-policy"] = ", ".join(
        f'"{name}";q={math.ceil(level.limit)};w={window}'
        for name, (level, window) in levels.items()
    )
    headers["ratelimit"] = ", ".join(
        f'"{name}";r={max(0, math.floor(level.left))};t={math.ceil(level.reset_s)}'
        for name, (level, _) in levels.items()
    )
    return headers


def format_duration(seconds: float) -> str:
    """Format seconds as OpenAI's headers do: 120ms, 1s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    return f"{whole}s" if whole < MINUTE_S else f"{whole // MINUTE_S}m{whole % MINUTE_S}s"
