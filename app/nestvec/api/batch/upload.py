"""Uploads of files: a multipart form whose file goes straight to the disk, and the fields beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import Request
from streaming_form_data import StreamingFormDataParser
from streaming_form_data.parser import ParseFailedException
from streaming_form_data.targets import FileTarget, ValueTarget
from streaming_form_data.validators import MaxSizeValidator, ValidationError
from typing_extensions import override

from nestvec.api.batch.stored_objects import lifetime_s
from nestvec.api.state import ApiState
from nestvec.errors import BodyTooLargeError, InputError
from nestvec.jobs.store import JobStore, new_id
from nestvec.jobs.types import BATCH_FILE_DAYS, DAY_S, Purpose, StoredFile

UPLOADABLE: Final = (Purpose.BATCH, Purpose.USER_DATA)
MAX_FIELD_BYTES: Final = 1024
# What a form has around its file.
FORM_MARGIN_BYTES: Final = 64 * 1024


class UploadTarget(FileTarget):  # type: ignore[misc] # the library has no types
    """A part on its way to the disk, which knows whether it came to its end."""

    is_whole = False

    @override
    def on_finish(self) -> None:
        """Note that the part's end was seen."""
        super().on_finish()
        self.is_whole = True

    def close(self) -> None:
        """Close the file of a part that broke off."""
        if self._fd is not None:
            self._fd.close()


@dataclass(slots=True)
class UploadForm:
    """The fields of an upload.

    Attributes:
        file: On the disk.
        purpose: What the file is for, as the caller wrote it.
        anchor: The point in time that `seconds` are counted from.
        seconds: How long the file is kept.
    """

    file: UploadTarget
    purpose: ValueTarget
    anchor: ValueTarget
    seconds: ValueTarget


async def receive_upload(request: Request, state: ApiState, draft: Path) -> UploadForm:
    """Write the file of a form to the disk as it comes in.

    Args:
        request: Whose body is the form.
        state: The application's shared state, whose options bound the file.
        draft: Where the file is written.

    Raises:
        BodyTooLargeError: The file is larger than a file may be.
        InputError: The body is not a form, or has no file.
        OSError: The disk is full.
    """
    max_bytes = state.options.jobs.max_file_bytes
    too_large = BodyTooLargeError(f"a file may have at most {max_bytes} bytes", param="file")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes + FORM_MARGIN_BYTES:
        raise too_large
    file = UploadTarget(str(draft), validator=MaxSizeValidator(max_bytes))
    form = UploadForm(file, *(_field() for _ in range(3)))
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


def store_upload(store: JobStore, *, form: UploadForm, owner: str, state: ApiState) -> StoredFile:
    """Check the fields of an upload, and move its file into the store.

    Args:
        store: Takes over the file.
        form: The upload.
        owner: Id of the key that the file belongs to.
        state: The application's shared state, whose options bound what a key may store.

    Raises:
        InputError: A field is wrong.
        QuotaError: The key's files would take too much space.
    """
    purpose = _text(form.purpose)
    if purpose not in UPLOADABLE:
        raise InputError(
            f"'purpose' must be {' or '.join(repr(str(p)) for p in UPLOADABLE)}", param="purpose"
        )
    path = form.file.multipart_filename or "upload"
    filename = path.replace("\\", "/").rsplit("/", 1)[-1][:255] or "upload"
    if purpose == Purpose.BATCH and not filename.endswith(".jsonl"):
        raise InputError("Invalid file format for Batch API. Must be .jsonl", param="file")
    seconds = _text(form.seconds)
    number = int(seconds) if seconds and seconds.isascii() and seconds.isdigit() else seconds
    kept_s = lifetime_s(_text(form.anchor), number, "expires_after")
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


def _field() -> ValueTarget:
    return ValueTarget(validator=MaxSizeValidator(MAX_FIELD_BYTES))


def _text(target: ValueTarget) -> str | None:
    """Return a field's text; None where the form has none."""
    return target.value.decode("utf-8", "replace") if target.value else None
