"""The OpenAI dialect: files.

Source: OpenAI's API reference for `/v1/files`, and what its clients were seen to send (api-contract, section 2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from streaming_form_data import StreamingFormDataParser
from streaming_form_data.parser import ParseFailedException
from streaming_form_data.targets import FileTarget, ValueTarget
from streaming_form_data.validators import MaxSizeValidator, ValidationError
from typing_extensions import override

from nestvec.api.http.auth import let_in
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.fields import as_integer
from nestvec.api.schemas.jobs import CONTENT_DOC, DELETE_DOC, FILE_DOC, FILES_DOC, UPLOAD_DOC
from nestvec.api.state import ApiState, api_state
from nestvec.errors import BodyTooLargeError, InputError, StoreError
from nestvec.jobs.store import JobStore, new_id
from nestvec.jobs.types import BATCH_FILE_DAYS, DAY_S, Purpose, StoredFile

router = APIRouter(route_class=RawRoute, tags=["files"])

UPLOADABLE: Final = (Purpose.BATCH, Purpose.USER_DATA)
LIFE_S: Final = (3600, 30 * DAY_S)
MAX_FIELD_BYTES: Final = 1024
FORM_MARGIN_BYTES: Final = 64 * 1024  # what a form has around its file
MAX_LISTED: Final = 10_000


class _Upload(FileTarget):  # type: ignore[misc] # the library has no types
    """A part on its way to the disk; knows whether it came to its end."""

    is_whole = False

    @override
    def on_finish(self) -> None:
        """The part's end was seen."""
        super().on_finish()
        self.is_whole = True

    def close(self) -> None:
        """Let go of a part that broke off."""
        if self._fd is not None:
            self._fd.close()


@dataclass(slots=True)
class _Form:
    """An upload's fields."""

    file: _Upload
    purpose: ValueTarget
    anchor: ValueTarget
    seconds: ValueTarget


@router.post("/v1/files", **UPLOAD_DOC)
@router.post("/files", include_in_schema=False)
async def upload_file(request: Request) -> Response:
    """Take a file, straight to the disk."""
    state = api_state(request)
    owner = let_in(request, state.keys)
    draft = await state.jobs.call(JobStore.upload_path)
    try:
        form = await _receive(request, state, draft)
        file = await state.jobs.call(partial(_take_over, form=form, owner=owner, state=state))
    except OSError as error:
        raise StoreError(f"The file could not be kept: {error.strerror}.") from error
    finally:
        draft.unlink(missing_ok=True)
    return json_response(file_object(file))


@router.get("/v1/files", **FILES_DOC)
@router.get("/files", include_in_schema=False)
async def list_files(request: Request) -> Response:
    """List a key's files."""
    state = api_state(request)
    owner = let_in(request, state.keys)
    query = request.query_params
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InputError("'order' must be 'asc' or 'desc'", param="order")
    limit = page_limit(query, MAX_LISTED, default=MAX_LISTED)
    found, has_more = await state.jobs.call(
        lambda store: store.list_files(
            owner,
            after=query.get("after"),
            limit=limit,
            purpose=query.get("purpose"),
            is_ascending=order == "asc",
        )
    )
    return json_response(page([file_object(file) for file in found], has_more=has_more))


@router.get("/v1/files/{file_id}", **FILE_DOC)
@router.get("/files/{file_id}", include_in_schema=False)
async def retrieve_file(request: Request, file_id: str) -> Response:
    """Describe a file."""
    state = api_state(request)
    owner = let_in(request, state.keys)
    return json_response(
        file_object(await state.jobs.call(lambda store: store.file(file_id, owner)))
    )


@router.get("/v1/files/{file_id}/content", **CONTENT_DOC)
@router.get("/files/{file_id}/content", include_in_schema=False)
async def file_content(request: Request, file_id: str) -> Response:
    """Give a file's bytes, or a range of them."""
    state = api_state(request)
    owner = let_in(request, state.keys)

    def locate(store: JobStore) -> tuple[StoredFile, Path]:
        file = store.file(file_id, owner)
        return file, store.content_path(file_id)

    file, path = await state.jobs.call(locate)
    return FileResponse(path, media_type="application/octet-stream", filename=file.filename)


@router.delete("/v1/files/{file_id}", **DELETE_DOC)
@router.delete("/files/{file_id}", include_in_schema=False)
async def delete_file(request: Request, file_id: str) -> Response:
    """Remove a file."""
    state = api_state(request)
    owner = let_in(request, state.keys)
    await state.jobs.call(lambda store: store.delete_file(file_id, owner))
    return json_response({"id": file_id, "object": "file", "deleted": True})


def file_object(file: StoredFile) -> dict[str, Any]:
    """A file as OpenAI describes it."""
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


def page(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page of a listing; clients page on until `has_more` is false."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def page_limit(query: Mapping[str, str], most: int, *, default: int) -> int:
    """How many a listing is to give.

    Raises:
        InputError: It is no number from 1 to `most`.
    """
    asked = query.get("limit")
    if asked is None:
        return default
    if not (asked.isascii() and asked.isdigit() and 1 <= int(asked) <= most):
        raise InputError(f"'limit' must be 1 to {most}", param="limit")
    return int(asked)


def life_s(anchor: object, seconds: object, param: str) -> int | None:
    """How long something is kept, in seconds; None where nothing is asked.

    Raises:
        InputError: The anchor is unknown, or the time out of bounds.
    """
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InputError(f"'{param}.anchor' must be 'created_at'", param=f"{param}.anchor")
    least, most = LIFE_S
    number = as_integer(seconds)
    if number is None or not least <= number <= most:
        raise InputError(f"'{param}.seconds' must be {least} to {most}", param=f"{param}.seconds")
    return number


async def _receive(request: Request, state: ApiState, draft: Path) -> _Form:
    """Write a form's file to disk as it comes.

    Raises:
        BodyTooLargeError: It is larger than a file may be.
        InputError: It is no form, or has no file.
    """
    most = state.options.jobs.max_file_bytes
    too_large = BodyTooLargeError(f"a file may have at most {most} bytes", param="file")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most + FORM_MARGIN_BYTES:
        raise too_large
    form = _Form(
        _Upload(str(draft), validator=MaxSizeValidator(most)), *(_field() for _ in range(3))
    )
    try:
        parser = StreamingFormDataParser(headers=dict(request.headers))
        parser.register("file", form.file)
        parser.register("purpose", form.purpose)
        parser.register("expires_after[anchor]", form.anchor)
        parser.register("expires_after[seconds]", form.seconds)
        async for chunk in request.stream():
            parser.data_received(chunk)
    except ValidationError:
        raise too_large from None
    except (ParseFailedException, ValueError, KeyError) as error:
        raise InputError("the body must be a multipart form with 'file' and 'purpose'") from error
    finally:
        form.file.close()
    if not form.file.is_whole:
        raise InputError("the form has no whole part 'file'", param="file")
    return form


def _field() -> ValueTarget:
    return ValueTarget(validator=MaxSizeValidator(MAX_FIELD_BYTES))


def _text(target: ValueTarget) -> str | None:
    """A field's text; None where the form has none."""
    return target.value.decode("utf-8", "replace") if target.value else None


def _take_over(store: JobStore, *, form: _Form, owner: str, state: ApiState) -> StoredFile:
    """Check the fields and note the file.

    Raises:
        InputError: A field is wrong.
    """
    purpose = _text(form.purpose)
    if purpose not in UPLOADABLE:
        raise InputError(
            f"'purpose' must be {' or '.join(repr(str(p)) for p in UPLOADABLE)}", param="purpose"
        )
    given = form.file.multipart_filename or "upload"
    filename = given.replace("\\", "/").rsplit("/", 1)[-1][:255] or "upload"
    if purpose == Purpose.BATCH and not filename.endswith(".jsonl"):
        raise InputError("Invalid file format for Batch API. Must be .jsonl", param="file")
    seconds = _text(form.seconds)
    whole = int(seconds) if seconds and seconds.isascii() and seconds.isdigit() else seconds
    kept_s = life_s(_text(form.anchor), whole, "expires_after")
    if kept_s is None and purpose == Purpose.BATCH:
        kept_s = BATCH_FILE_DAYS * DAY_S
    now, draft = store.now(), Path(form.file.filename)
    file = StoredFile(
        id=new_id("file-"),
        owner=owner,
        purpose=Purpose(purpose),
        filename=filename,
        size_bytes=draft.stat().st_size,
        created_s=now,
        expires_s=None if kept_s is None else now + kept_s,
    )
    store.add_file(file, draft, state.options.jobs.max_stored_bytes)
    return file
