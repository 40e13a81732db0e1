"""The OpenAI dialect: batches.

Source: OpenAI's API reference for `/v1/batches`, and what its clients were seen to send (api-contract, section 2).
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.batch.files import life_s, page, page_limit
from nestvec.api.http.auth import let_in
from nestvec.api.http.body import read_json_object
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.fields import Body, text_field
from nestvec.api.schemas.jobs import BATCH_DOC, BATCHES_DOC, CREATE_BATCH_DOC
from nestvec.api.state import api_state
from nestvec.errors import InputError
from nestvec.jobs.store import JobStore, new_id
from nestvec.jobs.types import DAY_S, Batch, Purpose, Status

router = APIRouter(route_class=RawRoute, tags=["batches"])

ENDPOINT: Final = "/v1/embeddings"
WINDOW: Final = "24h"
MAX_PAIRS, MAX_KEY_CHARS, MAX_VALUE_CHARS = 16, 64, 512
MAX_LISTED, LISTED = 100, 20
# Public names of the times at which statuses were reached.
TIMES: Final = (
    Status.IN_PROGRESS,
    Status.FINALIZING,
    Status.COMPLETED,
    Status.FAILED,
    Status.EXPIRED,
    Status.CANCELLING,
    Status.CANCELLED,
)


@router.post("/v1/batches", **CREATE_BATCH_DOC)
@router.post("/batches", include_in_schema=False)
async def create_batch(request: Request) -> Response:
    """Take a batch; what is wrong with its file shows later, as its status."""
    state = api_state(request)
    owner = let_in(request, state.keys)
    body = await read_json_object(
        request, max_bytes=state.options.max_body_bytes, limits=state.options.json
    )

    def create(store: JobStore) -> Batch:
        batch = _parse(body, owner, store)
        store.add_batch(batch)
        return batch

    batch = await state.jobs.call(create)
    state.jobs.wake()
    return json_response(batch_object(batch))


@router.get("/v1/batches", **BATCHES_DOC)
@router.get("/batches", include_in_schema=False)
async def list_batches(request: Request) -> Response:
    """List a key's batches, newest first."""
    state = api_state(request)
    owner = let_in(request, state.keys)
    query = request.query_params
    limit = page_limit(query, MAX_LISTED, default=LISTED)
    found, has_more = await state.jobs.call(
        lambda store: store.list_batches(owner, after=query.get("after"), limit=limit)
    )
    return json_response(page([batch_object(batch) for batch in found], has_more=has_more))


@router.get("/v1/batches/{batch_id}", **BATCH_DOC)
@router.get("/batches/{batch_id}", include_in_schema=False)
async def retrieve_batch(request: Request, batch_id: str) -> Response:
    """Describe a batch."""
    state = api_state(request)
    owner = let_in(request, state.keys)
    return json_response(
        batch_object(await state.jobs.call(lambda store: store.batch(batch_id, owner)))
    )


@router.post("/v1/batches/{batch_id}/cancel", **BATCH_DOC)
@router.post("/batches/{batch_id}/cancel", include_in_schema=False)
async def cancel_batch(request: Request, batch_id: str) -> Response:
    """Stop a batch; one that has ended stays as it is, since an error would be retried."""
    state = api_state(request)
    owner = let_in(request, state.keys)
    found = await state.jobs.call(lambda store: store.cancel_batch(batch_id, owner))
    return json_response(batch_object(found))


def batch_object(batch: Batch) -> dict[str, Any]:
    """A batch as OpenAI describes it; its files show once it has ended."""
    problems = [
        {"code": p.code, "message": p.message, "param": p.param, "line": p.line}
        for p in batch.problems
    ]
    tokens = batch.input_tokens
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": problems} if problems else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": str(batch.status),
        "output_file_id": batch.output_file_id if batch.status.is_final else None,
        "error_file_id": batch.error_file_id if batch.status.is_final else None,
        "created_at": batch.created_s,
        "expires_at": batch.expires_s,
        **{f"{status}_at": batch.times.get(status) for status in TIMES},
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "usage": {
            "input_tokens": tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens,
        },
        "metadata": batch.metadata,
    }


def _parse(body: Body, owner: str, store: JobStore) -> Batch:
    """A new batch of a body.

    Raises:
        InputError: A field is missing or wrong.
        NotFoundError: The key has no such file.
    """
    input_file_id = text_field(body, "input_file_id")
    if input_file_id is None:
        raise InputError(
            "'input_file_id' is required", param="input_file_id", code="missing_required_parameter"
        )
    if text_field(body, "endpoint") != ENDPOINT:
        raise InputError(f"'endpoint' must be '{ENDPOINT}'", param="endpoint")
    if text_field(body, "completion_window") not in (None, WINDOW):
        raise InputError(f"'completion_window' must be '{WINDOW}'", param="completion_window")
    file = store.file(input_file_id, owner)
    if file.purpose is not Purpose.BATCH:
        raise InputError("the input file's purpose must be 'batch'", param="input_file_id")
    expires = body.get("output_expires_after")
    if expires is not None and not isinstance(expires, dict):
        raise InputError("'output_expires_after' must be an object", param="output_expires_after")
    kept = expires or {}
    now = store.now()
    return Batch(
        id=new_id("batch_"),
        owner=owner,
        endpoint=ENDPOINT,
        input_file_id=input_file_id,
        completion_window=WINDOW,
        status=Status.VALIDATING,
        created_s=now,
        expires_s=now + DAY_S,
        metadata=_metadata(body.get("metadata")),
        output_expires_s=life_s(kept.get("anchor"), kept.get("seconds"), "output_expires_after"),
    )


def _metadata(given: object) -> Mapping[str, str] | None:
    """Pairs of texts.

    Raises:
        InputError: They are something else, or too many or too long.
    """
    if given is None:
        return None
    is_good = (
        isinstance(given, dict)
        and len(given) <= MAX_PAIRS
        and all(
            isinstance(value, str) and len(value) <= MAX_VALUE_CHARS and len(key) <= MAX_KEY_CHARS
            for key, value in given.items()
        )
    )
    if not (is_good and isinstance(given, dict)):
        raise InputError(
            f"'metadata' must be an object of at most {MAX_PAIRS} texts, keys up to {MAX_KEY_CHARS} characters, values "
            f"up to {MAX_VALUE_CHARS}",
            param="metadata",
        )
    return given
