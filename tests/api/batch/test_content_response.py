"""A stored file's bytes come whole or in ranges, from a folder and from an object store alike."""

from pathlib import Path

import pytest
from fastapi.responses import FileResponse, StreamingResponse
from nestvec.api.batch.content_response import content_response
from nestvec.errors import StoreError
from nestvec.jobs.objects import ObjectStore, open_objects

CONTENT = bytes(range(100))


@pytest.fixture
def remote(tmp_path: Path) -> ObjectStore:
    """An object store with one object."""
    objects = open_objects("memory:///", tmp_path)
    draft = tmp_path / "draft"
    draft.write_bytes(CONTENT)
    objects.put("files/file-1", draft)
    return objects


@pytest.mark.parametrize(
    ("wanted", "status", "start", "end"),
    [
        (None, 200, 0, 100),
        ("bytes=0-", 206, 0, 100),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=90-1000", 206, 90, 100),
        ("bytes=-7", 206, 93, 100),
        ("bytes=-1000", 206, 0, 100),
        ("bytes=-", 200, 0, 100),
        ("bytes=0-1,5-6", 200, 0, 100),
        ("lines=1-2", 200, 0, 100),
    ],
)
async def test_ranges(
    remote: ObjectStore, wanted: str | None, status: int, start: int, end: int
) -> None:
    """One range of an object is served; what is no range, or several, gets the whole."""
    headers = {} if wanted is None else {"range": wanted}
    answer = content_response(remote, "files/file-1", "a.jsonl", headers)
    assert isinstance(answer, StreamingResponse)
    pieces = [piece async for piece in answer.body_iterator]
    body = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    assert (answer.status_code, body) == (status, CONTENT[start:end])
    assert answer.headers["content-length"] == str(end - start)
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/100"


@pytest.mark.parametrize("wanted", ["bytes=100-", "bytes=50-40", "bytes=-0"])
def test_ranges_outside(remote: ObjectStore, wanted: str) -> None:
    """A range that holds no byte is refused with the size."""
    answer = content_response(remote, "files/file-1", "a.jsonl", {"range": wanted})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */100")


def test_a_folder_gives_a_file(tmp_path: Path) -> None:
    """A local file is sent as one; a content that has vanished is an error of the store."""
    objects = open_objects("", tmp_path)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "file-1").write_bytes(CONTENT)
    assert isinstance(content_response(objects, "files/file-1", "a.jsonl", {}), FileResponse)
    with pytest.raises(StoreError):
        content_response(objects, "files/none", "a.jsonl", {})
