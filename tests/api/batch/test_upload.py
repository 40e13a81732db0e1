"""Forms of uploads as clients send them, and forms that are all but a file: bounded in bytes, headers and parts."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nestvec.api.batch import upload_form
from nestvec.api.batch.upload_form import (
    FORM_MARGIN_BYTES,
    MAX_FIELD_BYTES,
    MAX_PARTS,
    UploadForm,
)
from nestvec.errors import BodyTooLargeError, InputError

from tests.api.applications import Jobs, line

FORM = "multipart/form-data; boundary=x"


def part(name: str, content: bytes, *, filename: str | None = None, **headers: str) -> bytes:
    """A part of a form, with the boundary before it."""
    named = "" if filename is None else f'; filename="{filename}"'
    lines = [f'Content-Disposition: form-data; name="{name}"{named}']
    lines += [f"{header.replace('_', '-')}: {value}" for header, value in headers.items()]
    return b"--x\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


def form(content: bytes, *extra: bytes) -> bytes:
    """A form of a batch's file, and other parts before it."""
    file = part("file", content, filename="in.jsonl", Content_Type="application/jsonl")
    return b"".join([part("purpose", b"batch"), *extra, file, b"--x--\r\n"])


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (form(line("a")), {}),
        (b"This is a form.\r\n" + form(line("a")), {}),
        (b"\r\n" + form(line("a")), {}),
        (form(line("a")) + b"The end.\r\n" * 100, {}),
        (gzip.compress(form(line("a"))), {"content-encoding": "gzip"}),
        (form(line("a"), part("junk", b"x" * 50_000)), {}),
        (form(line("a")).replace(b"Content-", b"content-"), {}),
    ],
    ids=["plain", "preamble", "line before", "epilogue", "gzip", "another part", "lower case"],
)
async def test_forms_that_are_read(jobs: Jobs, body: bytes, headers: dict[str, str]) -> None:
    """A form may have text before and behind its parts and parts that nobody asked for, and may be compressed."""
    answer = await jobs.client.post(
        "/v1/files", content=body, headers={"content-type": FORM, **headers}
    )
    assert answer.status_code == 200, answer.text
    file = answer.json()
    assert (file["purpose"], file["filename"]) == ("batch", "in.jsonl")
    content = await jobs.client.get(f"/v1/files/{file['id']}/content")
    assert content.content == line("a")
    assert jobs.api.app.state.body_memory.held_bytes == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("übung.jsonl", "übung.jsonl"),
        ("../../etc/passwd.jsonl", "passwd.jsonl"),
        ("a" * 3000 + ".jsonl", "a" * 255),
        ("50%25.jsonl", "50%25.jsonl"),
    ],
    ids=["UTF-8", "a path", "long", "percent"],
)
def test_names_of_files(tmp_path: Path, name: str, told: str) -> None:
    """A file's name may be long, and in UTF-8 as every client sends it."""
    upload = UploadForm(FORM, tmp_path / "draft", 1000)
    upload.feed(part("file", b"abc", filename=name) + b"--x--\r\n")
    upload.finish()
    upload.close()
    assert upload.filename is not None
    assert upload.filename.rsplit("/", 1)[-1][:255] == told[:255]
    assert (tmp_path / "draft").read_bytes() == b"abc"


def endless(start: bytes, unit: bytes) -> Iterator[bytes]:
    """A form that goes on without end."""
    yield start
    while True:
        yield unit * (8192 // len(unit))


ENDLESS = {
    "a header without end": (b'--x\r\nContent-Disposition: form-data; name="ju', b"a"),
    "headers without end": (b"--x\r\n", b"x-a: b\r\n"),
    "a header that goes on": (b"--x\r\nx: y\r\n", b" continued\r\n"),
    "another part without end": (
        b'--x\r\nContent-Disposition: form-data; name="junk"\r\n\r\n',
        b"a",
    ),
    "empty parts without end": (b"", part("junk", b"")),
    "text before the form": (b"", b"before\r\n"),
    "text behind the form": (form(b"abc"), b"behind\r\n"),
    "a field without end": (b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n', b"a"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_what_is_no_file_is_bounded(tmp_path: Path, case: str) -> None:
    """Whatever a form has beside its file, it is refused within the margin, long before a file would be too large."""
    upload = UploadForm(FORM, tmp_path / "draft", 2**30)

    def feed_all() -> None:
        taken = 0
        for chunk in endless(*ENDLESS[case]):
            taken += len(chunk)
            assert taken < FORM_MARGIN_BYTES + 3 * 8192
            upload.feed(chunk)

    with pytest.raises((InputError, BodyTooLargeError)):
        feed_all()
    upload.close()


@pytest.mark.parametrize("case", ["another part without end", "a header without end"])
async def test_a_form_without_end_is_answered(jobs: Jobs, case: str) -> None:
    """A chunked form that is all but a file is refused while it comes in, and leaves nothing on the disk."""

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in endless(*ENDLESS[case]):
            yield chunk
            await asyncio.sleep(0)

    async with asyncio.timeout(10):
        answer = await jobs.client.post(
            "/v1/files", content=chunks(), headers={"content-type": FORM}
        )
    assert answer.status_code in (400, 413)
    assert "form" in answer.json()["error"]["message"]
    assert list((jobs.folder / "parts").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (form(b"abc")[:-9], "multipart form"),
        (form(b"abc").removesuffix(b"--x--\r\n"), "multipart form"),
        (form(b"abc", part("file", b"x", filename="b.jsonl")), "more than one part"),
        (form(b"abc", part("expires_after[anchor]", b"a" * (MAX_FIELD_BYTES + 1))), "bytes"),
        (form(b"abc", *[part(f"p{n}", b"") for n in range(MAX_PARTS)]), "parts"),
        (form(b"abc", part("p", b"", **{f"x_{n}": "y" for n in range(20)})), "headers"),
        (form(b"abc").replace(b"--x", b"--y"), "multipart form"),
        (b"", "multipart form"),
        (b"--x--\r\n", "no part 'file'"),
    ],
    ids=["cut", "no end", "two files", "field", "parts", "headers", "boundary", "empty", "no file"],
)
async def test_forms_that_are_refused(jobs: Jobs, body: bytes, says: str) -> None:
    """A form that breaks off, has two files, or more parts, headers or bytes than any client sends is an error."""
    answer = await jobs.client.post("/v1/files", content=body, headers={"content-type": FORM})
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["error"]["message"]
    assert list((jobs.folder / "parts").iterdir()) == []


@pytest.mark.parametrize(
    "content_type", ["", "multipart/form-data", "multipart/form-data; boundary=", "text/plain"]
)
def test_what_is_no_form(tmp_path: Path, content_type: str) -> None:
    """A content type without a boundary is no form's."""
    with pytest.raises(InputError, match="multipart form"):
        UploadForm(content_type, tmp_path / "draft", 1000)


async def test_a_bomb_in_a_form_is_stopped(jobs: Jobs) -> None:
    """A compressed form is bounded by what comes out of it."""
    body = gzip.compress(form(b"a" * 400_000))
    assert len(body) < 2000
    answer = await jobs.client.post(
        "/v1/files", content=body, headers={"content-type": FORM, "content-encoding": "gzip"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert list((jobs.folder / "parts").iterdir()) == []


async def test_forms_are_parsed_in_threads(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing and writing is done off the event loop."""
    loops: list[bool] = []
    feed = upload_form.UploadForm.feed

    def watched(self: UploadForm, data: bytes) -> None:
        try:
            asyncio.get_running_loop()
            loops.append(True)
        except RuntimeError:
            loops.append(False)
        feed(self, data)

    monkeypatch.setattr(upload_form.UploadForm, "feed", watched)
    assert (await jobs.upload(b"a\n" * 140_000)).status_code == 200
    assert loops
    assert not any(loops)


async def test_uploads_under_way_count_as_bodies(jobs: Jobs) -> None:
    """What an upload collects in memory is taken from the room for bodies, and given back."""
    memory = jobs.api.app.state.body_memory
    seen: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        yield form(line("a"))
        await asyncio.sleep(0)
        seen.append(memory.held_bytes)

    answer = await jobs.client.post("/v1/files", content=chunks(), headers={"content-type": FORM})
    assert answer.status_code == 200
    assert seen[0] >= 256 * 1024
    assert memory.held_bytes == 0
