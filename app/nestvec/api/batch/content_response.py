"""The bytes of a stored file as a response: a local file, or an object that is streamed from its store."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import FileResponse, StreamingResponse

from nestvec.errors import StoreError
from nestvec.jobs.objects import ObjectStore

MEDIA_TYPE: Final = "application/octet-stream"
ONE_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
PARTIAL: Final = 206
NOT_SATISFIABLE: Final = 416


def content_response(
    objects: ObjectStore, name: str, filename: str, headers: Mapping[str, str]
) -> Response:
    """Answer with an object, or with the range of it that a request asks for.

    Of a remote object one range is served; a request for several gets the whole, as RFC 9110 allows (14.2).

    Args:
        objects: Where it is kept; asked for its size, which may wait for the network.
        name: Its name.
        filename: Name under which a browser would save it.
        headers: The request's headers.

    Raises:
        StoreError: It is not there, or the store cannot be reached.
    """
    size = objects.size(name)
    if size is None:
        raise StoreError("The content of this file is not in the store any more.")
    path = objects.local_path(name)
    if path is not None:
        return FileResponse(path, media_type=MEDIA_TYPE, filename=filename)
    answer_headers = {
        "accept-ranges": "bytes",
        "content-disposition": f"attachment; filename*=utf-8''{quote(filename)}",
    }
    wanted = ONE_RANGE.fullmatch(headers.get("range", "").strip())
    if wanted is None or not any(wanted.groups()) or "if-range" in headers:
        start, end, status = 0, size, 200
    else:
        start, end = _bounds(wanted[1], wanted[2], size)
        if start >= end:
            answer_headers["content-range"] = f"bytes */{size}"
            return Response(status_code=NOT_SATISFIABLE, headers=answer_headers)
        answer_headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
        status = PARTIAL
    answer_headers["content-length"] = str(end - start)
    pieces = objects.read(name, start, end)
    return StreamingResponse(pieces, status, answer_headers, media_type=MEDIA_TYPE)


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """The first byte of a range, and the one behind its last; without a first it is a suffix (RFC 9110, 14.1.2)."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), size if not last else min(int(last) + 1, size)
