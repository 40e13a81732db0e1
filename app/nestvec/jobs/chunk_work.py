"""What is done with a chunk beside answering it: its lines are read, its results become parts, a part becomes smaller.

All of it waits for the disk or the object store, so it runs in threads.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final

import orjson

from nestvec.jobs.chunks import SUSPECT_ATTEMPTS
from nestvec.jobs.lines import Line, lines_of, request_of
from nestvec.jobs.objects import object_draft
from nestvec.jobs.store import PARTS, JobStore
from nestvec.jobs.types import BatchChunk, BatchJob, ChunkResult, LineResult, Status

OK: Final = 200
# Into how many pieces a chunk is split to find the line that ends its runner: two steps from 1,024 lines to one.
PIECES: Final = 32
NEVER_RAN: Final = {
    Status.CANCELLED: ("batch_cancelled", "The batch was cancelled before this request ran."),
    Status.EXPIRED: ("batch_expired", "The batch's window closed before this request ran."),
}

# The custom id and the body of a line.
BatchRequest = tuple[str, Mapping[str, Any]]


def read_requests(store: JobStore, batch: BatchJob, chunk: BatchChunk) -> list[BatchRequest]:
    """Read the requests of a chunk.

    Raises:
        MissingObjectError: The input file is gone.
        StoreError: The disk or the object store failed.
    """
    return [request_of(line) for line in _lines(store, batch, chunk)]


def split_chunk(store: JobStore, batch: BatchJob, chunk: BatchChunk) -> list[BatchChunk]:
    """Cut a chunk of several lines into smaller ones, which have no numbers yet.

    Raises:
        MissingObjectError: The input file is gone.
        StoreError: The disk or the object store failed.
    """
    lines = _lines(store, batch, chunk)
    step = ceil(len(lines) / PIECES)
    pieces = []
    for first in range(0, len(lines), step):
        part = lines[first : first + step]
        start = part[0].offset_bytes
        size = part[-1].offset_bytes + len(part[-1].content or b"") - start
        pieces.append(
            BatchChunk(
                chunk.batch_id,
                0,
                chunk.first_request + first,
                len(part),
                chunk.offset_bytes + start,
                size,
                SUSPECT_ATTEMPTS,
            )
        )
    return pieces


def answer_parts(
    store: JobStore,
    chunk: BatchChunk,
    holder: str,
    requests: Sequence[BatchRequest],
    results: Sequence[LineResult],
) -> ChunkResult:
    """Store the answers to a chunk as parts.

    Raises:
        StoreError: The disk or the object store failed.
    """
    rows: dict[bool, list[bytes]] = {True: [], False: []}
    request_ids = _ids(len(requests))
    rows_ids = _ids(len(requests))
    for (custom_id, _), result in zip(requests, results, strict=True):
        response = b'{"status_code":%d,"request_id":"req_%s","body":%s}' % (
            result.status,
            next(request_ids),
            result.body,
        )
        rows[result.status == OK].append(_row(next(rows_ids), custom_id, response, b"null"))
    output_part, output_bytes = _store_part(store, chunk, holder, "output", rows[True])
    error_part, error_bytes = _store_part(store, chunk, holder, "errors", rows[False])
    return ChunkResult(
        output_part,
        output_bytes,
        error_part,
        error_bytes,
        completed=len(rows[True]),
        failed=len(rows[False]),
        input_tokens=sum(result.tokens for result in results),
    )


def refusal_parts(
    store: JobStore, chunk: BatchChunk, holder: str, requests: Sequence[BatchRequest], why: Status
) -> ChunkResult:
    """Store why each request of a chunk never ran.

    Raises:
        StoreError: The disk or the object store failed.
    """
    code, message = NEVER_RAN[why]
    error = orjson.dumps({"code": code, "message": message})
    ids = _ids(len(requests))
    rows = [_row(next(ids), custom_id, b"null", error) for custom_id, _ in requests]
    part, size = _store_part(store, chunk, holder, "errors", rows)
    return ChunkResult(error_part=part, error_bytes=size, refused=why.value)


def delete_parts(store: JobStore, result: ChunkResult) -> None:
    """Delete parts whose chunk another runner has finished.

    Raises:
        StoreError: The disk or the object store failed; they go with their batch's other parts.
    """
    store.objects.delete(part for part in (result.output_part, result.error_part) if part)


def _lines(store: JobStore, batch: BatchJob, chunk: BatchChunk) -> list[Line]:
    name = store.content_name(batch.input_file_id)
    end = chunk.offset_bytes + chunk.size_bytes
    return lines_of(b"".join(store.objects.read(name, chunk.offset_bytes, end)))


def _store_part(
    store: JobStore, chunk: BatchChunk, holder: str, kind: str, rows: Sequence[bytes]
) -> tuple[str | None, int]:
    """Store rows as an object; gives its name, None where there are none, and its size."""
    if not rows:
        return None, 0
    # Each claim has parts of its own, so that none is ever written anew.
    name = f"{PARTS}/{chunk.batch_id}/{chunk.number}-{holder}-{chunk.attempts}.{kind}"
    with object_draft(store.drafts_folder) as draft:
        draft.writelines(rows)
        draft.flush()
        size = draft.tell()
        store.objects.put(name, Path(draft.name))
    return name, size


def _ids(count: int) -> Iterator[bytes]:
    """Random parts of ids that nobody can guess; drawn at once, which is several times as fast."""
    digits = secrets.token_hex(16 * count).encode()
    return (digits[start : start + 32] for start in range(0, 32 * count, 32))


def _row(row_id: bytes, custom_id: str, response: bytes, error: bytes) -> bytes:
    return b'{"id":"batch_req_%s","custom_id":%s,"response":%s,"error":%s}\n' % (
        row_id,
        orjson.dumps(custom_id),
        response,
        error,
    )
