"""What keys have used: each sees its own usage, and one with the admin right that of all."""

import asyncio
import re
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.auth import authenticate, grant_of
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import bind_dialect
from nestvec.api.schemas.usage import USAGE_DOC
from nestvec.errors import ForbiddenError, InputError
from nestvec.keys.key_usage import KeyUsage
from nestvec.keys.keyring import Keyring

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


@router.get("/v1/usage", **USAGE_DOC)
async def usage(request: Request) -> Response:
    """Tell what the key has used in a month, or with the admin right what each key has."""
    state = bind_dialect(request, OPENAI.name)
    own_id = authenticate(request, state.keys)
    query = request.query_params
    month, key_id = query.get("month"), query.get("key_id")
    if month is not None and not MONTH.fullmatch(month):
        raise InputError("'month' must be a year and a month, as 2026-11", param="month")
    if not grant_of(request).is_admin:
        if key_id not in (None, own_id):
            raise ForbiddenError("This API key has no admin right: it sees its own usage only.")
        key_id = own_id
    keys = state.keys
    when = month or keys.usage.current_month()
    rows = [] if keys.is_open else await asyncio.to_thread(keys.usage.read, when, key_id)
    if not rows and key_id is not None:
        rows = [KeyUsage(key_id, when, 0, 0)]
    data = [_described(keys, row) for row in rows]
    return json_response({"object": "list", "month": when, "data": data})


def _described(keys: Keyring, row: KeyUsage) -> dict[str, Any]:
    return {
        "object": "usage",
        "key_id": row.key_id,
        "name": keys.name_of(row.key_id),
        "month": row.month,
        "requests": row.requests,
        "tokens": row.tokens,
        "monthly_tokens": keys.quota_of(row.key_id),
    }
