"""A multipart form whose file goes straight to the disk, fed piece by piece in a thread.

Source: RFC 7578, and RFC 2046 5.1 for what may stand around the parts.
"""

from pathlib import Path
from typing import BinaryIO, Final

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from nestvec.errors import BodyTooLargeError, InputError

FILE: Final = "file"
PURPOSE: Final = "purpose"
ANCHOR: Final = "expires_after[anchor]"
SECONDS: Final = "expires_after[seconds]"
FIELDS: Final = (PURPOSE, ANCHOR, SECONDS)
MAX_FIELD_BYTES: Final = 1024
# What a form has around its file: headers of parts, fields, parts that nobody asked for, what stands before and behind.
FORM_MARGIN_BYTES: Final = 64 * 1024
MAX_PARTS: Final = 32
MAX_PART_HEADERS: Final = 16
# A file's name may have some thousands of characters.
MAX_PART_HEADER_BYTES: Final = 16 * 1024


class UploadForm:
    """An upload on its way in.

    Args:
        content_type: The request's, with the boundary.
        draft: Where the file is written.
        max_file_bytes: How large the file may be.

    Attributes:
        draft: Where the file is written.
        filename: What the caller calls the file; None before its part began, or if it has no name.

    Raises:
        InputError: The content type is not a form's.
    """

    def __init__(self, content_type: str, draft: Path, max_file_bytes: int) -> None:
        kind, options = parse_options_header(content_type)
        if kind != "multipart/form-data":
            raise _no_form()
        try:
            self._parser = PushMultipartParser(
                options.get("boundary", ""),
                max_header_size=MAX_PART_HEADER_BYTES,
                max_header_count=MAX_PART_HEADERS,
                max_segment_count=MAX_PARTS,
                # Every byte is a character of it; what was meant is told by `_readable`.
                header_charset="latin-1",
            )
        except (MultipartError, ValueError):
            raise _no_form() from None
        self.draft = draft
        self.filename: str | None = None
        self._max_file_bytes = max_file_bytes
        self._file: BinaryIO | None = None
        self._file_bytes = 0
        self._other_bytes = 0
        self._fields: dict[str, bytearray] = {}
        self._part = ""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the form; blocks while the file is written.

        Raises:
            BodyTooLargeError: The file is larger than a file may be, or what is around it is.
            InputError: The body is not a form, or a field of it is too long.
            OSError: The disk is full.
        """
        file_bytes = self._file_bytes
        try:
            for event in self._parser.parse(data):
                if isinstance(event, MultipartSegment):
                    self._begin_part(event)
                elif event:
                    self._add(event)
        except ParserLimitReached:
            raise InputError(
                f"a form may have at most {MAX_PARTS} parts, and a part {MAX_PART_HEADERS} headers of at most "
                f"{MAX_PART_HEADER_BYTES} bytes"
            ) from None
        except MultipartError:
            raise _no_form() from None
        self._other_bytes += len(data) - (self._file_bytes - file_bytes)
        if self._other_bytes > FORM_MARGIN_BYTES:
            raise BodyTooLargeError(
                f"a form may have at most {FORM_MARGIN_BYTES} bytes beside its file", param=FILE
            )

    def finish(self) -> None:
        """Check that the form has come to its end and has a file.

        Raises:
            InputError: It has not.
        """
        try:
            self._parser.close()
        except MultipartError:
            raise _no_form() from None
        if self._file is None:
            raise InputError("the form has no part 'file'", param=FILE)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def text(self, field: str) -> str | None:
        """Return a field's text; None where the form has none."""
        value = self._fields.get(field)
        return value.decode("utf-8", "replace") if value else None

    def _begin_part(self, segment: MultipartSegment) -> None:
        """Take note of which part begins.

        Raises:
            InputError: It is a second file.
        """
        self._part = segment.name or ""
        if self._part != FILE:
            return
        if self._file is not None:
            raise InputError("the form has more than one part 'file'", param=FILE)
        self.filename = None if segment.filename is None else _readable(segment.filename)
        self._file = self.draft.open("wb")

    def _add(self, content: bytes) -> None:
        """Take a piece of the part's content.

        Raises:
            BodyTooLargeError: The file is larger than a file may be.
            InputError: A field is too long.
        """
        if self._part == FILE and self._file is not None:
            self._file_bytes += len(content)
            if self._file_bytes > self._max_file_bytes:
                raise too_large_file(self._max_file_bytes)
            self._file.write(content)
        elif self._part in FIELDS:
            value = self._fields.setdefault(self._part, bytearray())
            value += content
            if len(value) > MAX_FIELD_BYTES:
                raise InputError(
                    f"a field may have at most {MAX_FIELD_BYTES} bytes", param=self._part
                )


def too_large_file(max_bytes: int) -> BodyTooLargeError:
    """Return the error that tells how large a file may be."""
    return BodyTooLargeError(f"a file may have at most {max_bytes} bytes", param=FILE)


def _no_form() -> InputError:
    return InputError("the body must be a multipart form with 'file' and 'purpose'")


def _readable(name: str) -> str:
    """Return a name as it was meant: UTF-8, as all clients of today send it."""
    try:
        return name.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return name
