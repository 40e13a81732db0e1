"""Batches of OpenAI's API.

Source: OpenAI's API reference for `/v1/batches`, and what its Python and Node clients send and need.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.batch.stored_objects import (
    authenticated_state,
    lifetime_s,
    object_response,
    page_limit,
    page_response,
)
from nestvec.api.http.body import read_json_object
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.fields import Body, text_field
from nestvec.api.schemas.jobs import BATCH_DOC, BATCHES_DOC, CREATE_BATCH_DOC
from nestvec.errors import InputError
from nestvec.jobs.store import JobStore, new_id
from nestvec.jobs.types import DAY_S, BatchJob, Purpose, Status

router = APIRouter(route_class=RawRoute, tags=["batches"])

ENDPOINT: Final = "/v1/embeddings"
WINDOW: Final = "24h"
MAX_METADATA_PAIRS: Final = 16
MAX_KEY_CHARS: Final = 64
MAX_VALUE_CHARS: Final = 512
MAX_LISTED: Final = 100
DEFAULT_LISTED: Final = 20
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
    """Create a batch; what is wrong with its file shows later, in its status."""
    state, owner = authenticated_state(request)
    body = await read_json_object(
        request,
        max_bytes=state.options.max_body_bytes,
        timeout_s=state.options.request_timeout_s,
        limits=state.options.json,
    )

    limits = state.options.jobs

    def create(store: JobStore) -> BatchJob:
        batch = _parse(body, owner, store)
        store.add_batch(
            batch,
            max_unfinished=limits.max_unfinished_batches,
            max_stored_bytes=limits.max_stored_bytes,
        )
        return batch

    batch = await state.jobs.call(create)
    state.jobs.wake()
    return json_response(batch_object(batch))


@router.get("/v1/batches", **BATCHES_DOC)
@router.get("/batches", include_in_schema=False)
async def list_batches(request: Request) -> Response:
    """List a key's batches, newest first."""
    state, owner = authenticated_state(request)
    query = request.query_params
    limit = page_limit(query, MAX_LISTED, default=DEFAULT_LISTED)
    return await page_response(
        state,
        lambda store: store.list_batches(owner, after=query.get("after"), limit=limit),
        batch_object,
    )


@router.get("/v1/batches/{batch_id}", **BATCH_DOC)
@router.get("/batches/{batch_id}", include_in_schema=False)
async def retrieve_batch(request: Request, batch_id: str) -> Response:
    """Describe a batch."""
    state, owner = authenticated_state(request)
    return await object_response(state, lambda store: store.batch(batch_id, owner), batch_object)


@router.post("/v1/batches/{batch_id}/cancel", **BATCH_DOC)
@router.post("/batches/{batch_id}/cancel", include_in_schema=False)
async def cancel_batch(request: Request, batch_id: str) -> Response:
    """Stop a batch; one that has ended stays as it is, since an error would be retried."""
    state, owner = authenticated_state(request)
    response = await object_response(
        state, lambda store: store.cancel_batch(batch_id, owner), batch_object
    )
    state.jobs.wake()
    return response


def batch_object(batch: BatchJob) -> dict[str, Any]:
    """Return a batch as OpenAI describes it; its files show once it has ended."""
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


def _parse(body: Body, owner: str, store: JobStore) -> BatchJob:
    """Read a new batch from a body.

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
    expires_after = expires or {}
    now = store.now()
    return BatchJob(
        id=new_id("batch_"),
        owner=owner,
        endpoint=ENDPOINT,
        input_file_id=input_file_id,
        completion_window=WINDOW,
        status=Status.VALIDATING,
        created_s=now,
        expires_s=now + DAY_S,
        metadata=_metadata(body.get("metadata")),
        output_expires_s=lifetime_s(
            expires_after.get("anchor"), expires_after.get("seconds"), "output_expires_after"
        ),
    )


def _metadata(value: object) -> Mapping[str, str] | None:
    """Read the caller's own pairs of texts.

    Raises:
        InputError: The value is something else, or has too many pairs or too long ones.
    """
    if value is None:
        return None
    is_valid = (
        isinstance(value, dict)
        and len(value) <= MAX_METADATA_PAIRS
        and all(
            isinstance(text, str) and len(text) <= MAX_VALUE_CHARS and len(key) <= MAX_KEY_CHARS
            for key, text in value.items()
        )
    )
    if not (is_valid and isinstance(value, dict)):
        raise InputError(
            f"'metadata' must be an object of at most {MAX_METADATA_PAIRS} texts, keys up to {MAX_KEY_CHARS} "
            f"characters, values up to {MAX_VALUE_CHARS}",
            param="metadata",
        )
    return value
