"""Uploads of files: a multipart form whose file goes straight to the disk, and the fields beside it."""

import asyncio
from pathlib import Path
from typing import Final

from fastapi import Request

from nestvec.api.batch.stored_objects import lifetime_s
from nestvec.api.batch.upload_form import (
    ANCHOR,
    FORM_MARGIN_BYTES,
    PURPOSE,
    SECONDS,
    UploadForm,
    too_large_file,
)
from nestvec.api.http.body import reservation_of
from nestvec.api.http.content_codings import content_coding, inflated
from nestvec.api.state import ApiState
from nestvec.errors import InputError
from nestvec.jobs.store import new_id
from nestvec.jobs.types import BATCH_FILE_DAYS, DAY_S, Purpose, StoredFile

UPLOADABLE: Final = (Purpose.BATCH, Purpose.USER_DATA)
# What is collected for a thread to be worth it; counted as a body is.
FEED_BYTES: Final = 256 * 1024


async def receive_upload(
    request: Request, state: ApiState, draft: Path, max_bytes: int
) -> UploadForm:
    """Write the file of a form to the disk as it comes in; the parsing and writing is done in a thread.

    Args:
        request: Whose body is the form, compressed or not.
        state: The application's shared state, whose options bound the file.
        draft: Where the file is written.
        max_bytes: Size that the file may have.

    Raises:
        BodyTooLargeError: The file is larger than a file may be.
        BodyFormatError: The form is in an encoding that is not read here, or is broken.
        InputError: The body is not a form, or has no file.
        QueueFullError: Other requests' bodies leave no memory for this one.
        OSError: The disk is full.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes + FORM_MARGIN_BYTES:
        raise too_large_file(max_bytes)
    coding = content_coding(request.headers)
    form = UploadForm(request.headers.get("content-type", ""), draft, max_bytes)
    if (reservation := reservation_of(request)) is not None:
        reservation.add(FEED_BYTES)
    waiting = bytearray()
    try:
        async for piece in inflated(request.stream(), coding) if coding else request.stream():
            waiting += piece
            if len(waiting) >= FEED_BYTES:
                await asyncio.to_thread(form.feed, bytes(waiting))
                waiting.clear()
        if waiting:
            await asyncio.to_thread(form.feed, bytes(waiting))
        form.finish()
    finally:
        form.close()
    return form


def uploaded_file(form: UploadForm, owner: str, now: int) -> StoredFile:
    """Check the fields of an upload, and return what is to be noted of its file.

    Args:
        form: The upload.
        owner: Id of the key that the file belongs to.
        now: Unix time in seconds.

    Raises:
        InputError: A field is wrong.
    """
    purpose = form.text(PURPOSE)
    if purpose not in UPLOADABLE:
        raise InputError(
            f"'purpose' must be {' or '.join(repr(str(p)) for p in UPLOADABLE)}", param="purpose"
        )
    path = form.filename or "upload"
    filename = path.replace("\\", "/").rsplit("/", 1)[-1][:255] or "upload"
    if purpose == Purpose.BATCH and not filename.endswith(".jsonl"):
        raise InputError("Invalid file format for Batch API. Must be .jsonl", param="file")
    seconds = form.text(SECONDS)
    number = int(seconds) if seconds and seconds.isascii() and seconds.isdigit() else seconds
    kept_s = lifetime_s(form.text(ANCHOR), number, "expires_after")
    if kept_s is None and purpose == Purpose.BATCH:
        kept_s = BATCH_FILE_DAYS * DAY_S
    draft = form.draft
    return StoredFile(
        id=new_id("file-"),
        owner=owner,
        purpose=Purpose(purpose),
        filename=filename,
        size_bytes=draft.stat().st_size,
        created_s=now,
        expires_s=None if kept_s is None else now + kept_s,
    )
