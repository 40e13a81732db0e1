"""Files of OpenAI's API.

Source: OpenAI's API reference for `/v1/files`, and what its Python and Node clients send and need.
"""

from contextlib import suppress
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.batch.content_response import content_response
from nestvec.api.batch.stored_objects import (
    authenticated_state,
    object_response,
    page_limit,
    page_response,
)
from nestvec.api.batch.upload import receive_upload, uploaded_file
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.schemas.jobs import CONTENT_DOC, DELETE_DOC, FILE_DOC, FILES_DOC, UPLOAD_DOC
from nestvec.errors import BodyTooLargeError, InputError, StoreError
from nestvec.jobs.file_records import quota_error
from nestvec.jobs.store import JobStore
from nestvec.jobs.types import StoredFile

router = APIRouter(route_class=RawRoute, tags=["files"])

MAX_LISTED: Final = 10_000


@router.post("/v1/files", **UPLOAD_DOC)
@router.post("/files", include_in_schema=False)
async def upload_file(request: Request) -> Response:
    """Upload a file, which goes straight to the disk."""
    state, owner = authenticated_state(request)
    jobs, limits = state.jobs, state.options.jobs
    draft, now = await jobs.call(lambda store: (store.upload_path(), store.now()))
    reserve = partial(
        JobStore.reserve_upload,
        upload_id=draft.name,
        owner=owner,
        wanted_bytes=_declared_bytes(request),
        max_file_bytes=limits.max_file_bytes,
        max_stored_bytes=limits.max_stored_bytes,
    )
    max_bytes = await jobs.call(reserve)
    try:
        form = await receive_upload(request, state, draft, max_bytes)
        file = uploaded_file(form, owner, now)
        await jobs.add_file(file, draft, limits.max_stored_bytes, draft.name)
    except BodyTooLargeError as error:
        if max_bytes < limits.max_file_bytes:
            raise quota_error(limits.max_stored_bytes, "file") from error
        raise
    except OSError as error:
        raise StoreError(f"The file could not be kept: {error.strerror}.") from error
    finally:
        draft.unlink(missing_ok=True)
        with suppress(StoreError):
            await jobs.call(lambda store: store.end_upload(draft.name))
    return json_response(file_object(file))


@router.get("/v1/files", **FILES_DOC)
@router.get("/files", include_in_schema=False)
async def list_files(request: Request) -> Response:
    """List a key's files."""
    state, owner = authenticated_state(request)
    query = request.query_params
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InputError("'order' must be 'asc' or 'desc'", param="order")
    limit = page_limit(query, MAX_LISTED, default=MAX_LISTED)
    return await page_response(
        state,
        lambda store: store.list_files(
            owner,
            after=query.get("after"),
            limit=limit,
            purpose=query.get("purpose"),
            is_ascending=order == "asc",
        ),
        file_object,
    )


@router.get("/v1/files/{file_id}", **FILE_DOC)
@router.get("/files/{file_id}", include_in_schema=False)
async def retrieve_file(request: Request, file_id: str) -> Response:
    """Describe a file."""
    state, owner = authenticated_state(request)
    return await object_response(state, lambda store: store.file(file_id, owner), file_object)


@router.get("/v1/files/{file_id}/content", **CONTENT_DOC)
@router.get("/files/{file_id}/content", include_in_schema=False)
async def file_content(request: Request, file_id: str) -> Response:
    """Return a file's bytes, or a range of them."""
    state, owner = authenticated_state(request)
    jobs = state.jobs
    file = await jobs.call(lambda store: store.file(file_id, owner))
    return await jobs.call_contents(
        lambda store: content_response(
            store.objects, store.content_name(file_id), file.filename, request.headers
        )
    )


@router.delete("/v1/files/{file_id}", **DELETE_DOC)
@router.delete("/files/{file_id}", include_in_schema=False)
async def delete_file(request: Request, file_id: str) -> Response:
    """Remove a file."""
    state, owner = authenticated_state(request)
    jobs = state.jobs
    await jobs.call(lambda store: store.forget_file(file_id, owner))
    # What cannot be deleted now is swept later.
    with suppress(StoreError):
        await jobs.call_contents(lambda store: store.delete_content(file_id))
    return json_response({"id": file_id, "object": "file", "deleted": True})


def _declared_bytes(request: Request) -> int | None:
    """How large an upload says it is, form included; None where it does not, or is compressed."""
    declared = request.headers.get("content-length", "")
    if "content-encoding" in request.headers or not (declared.isascii() and declared.isdigit()):
        return None
    return int(declared)


def file_object(file: StoredFile) -> dict[str, Any]:
    """Return a file as OpenAI describes it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": file.created_s,
        "expires_at": file.expires_s,
        "filename": file.filename,
        "purpose": str(file.purpose),
        "status": "processed",
        "status_details": None,
    }
