"""Compressed bodies as they are found in the wild: members of gzip, raw deflate, junk, and blocks that hold nothing."""

import asyncio
import gzip
import itertools
import json
import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.api.http import content_codings
from nestvec.api.http.content_codings import (
    FREE_WASTE_BYTES,
    PIECE_BYTES,
    BodyInflater,
    content_coding,
)
from nestvec.errors import BodyFormatError
from starlette.datastructures import Headers

from tests.api.applications import Api

OK = b'{"input": "alpha"}'


def raw_deflate(content: bytes, level: int = 6) -> bytes:
    """Deflate without any header, as some clients send it under the name of deflate."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(content) + stream.flush()


def empty_blocks(count: int) -> bytes:
    """So many stored blocks of no bytes, of five bytes each, which go on a deflate stream."""
    return b"\x00\x00\x00\xff\xff" * count


def inflate(coding: str, chunks: list[bytes]) -> bytes:
    """Inflate a body that comes in these chunks."""
    inflater = BodyInflater(coding)
    pieces = [piece for chunk in chunks for piece in inflater.feed(chunk)]
    assert all(len(piece) <= PIECE_BYTES for piece in pieces)
    inflater.finish()
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(OK[:7], mtime=0) + gzip.compress(OK[7:], mtime=0)),
        ("gzip", gzip.compress(b"", mtime=0) * 3 + gzip.compress(OK, mtime=0)),
        ("Deflate", raw_deflate(OK)),
        ("deflate", raw_deflate(OK, level=0)),
        ("deflate", zlib.compress(OK, level=9)),
        ("gzip", zlib.compress(OK)),
        ("deflate", gzip.compress(OK, mtime=0)),
        ("X-GZIP, identity", gzip.compress(OK, mtime=0)),
        ("", OK),
    ],
    ids=range(9),
)
async def test_what_is_inflated(api: Api, coding: str, body: bytes) -> None:
    """Several members of gzip are one body, deflate may come raw, and the names are matched in upper or lower case."""
    answer = await api.client.post(
        "/v1/embeddings", content=body, headers={"content-encoding": coding}
    )
    assert answer.status_code == 200, answer.text
    plain = await api.client.post("/v1/embeddings", content=OK)
    assert answer.json()["data"] == plain.json()["data"]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(OK, mtime=0) + b"junk"),
        ("gzip", gzip.compress(OK, mtime=0) + b"\x1f"),
        ("gzip", gzip.compress(OK, mtime=0) + gzip.compress(OK, mtime=0)[:-3]),
        ("gzip", gzip.compress(OK, mtime=0) + bytes(8)),
        ("deflate", zlib.compress(OK) + zlib.compress(b"")),
        ("deflate", raw_deflate(OK) + b"x"),
        ("deflate", raw_deflate(OK)[:-2]),
        ("gzip", raw_deflate(OK)),
        ("gzip", b""),
        ("gzip", b"\x1f"),
        ("gzip, gzip", gzip.compress(gzip.compress(OK))),
        ("br", OK),
    ],
    ids=range(12),
)
async def test_what_is_refused(api: Api, coding: str, body: bytes) -> None:
    """What stands behind the end, breaks off, or is of another coding is an error with a code; nothing is dropped."""
    answer = await api.client.post(
        "/v1/embeddings", content=body, headers={"content-encoding": coding}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_encoding")


def test_codings_on_several_lines_are_one_list() -> None:
    """A coding on a second line of the header is seen."""
    lines = [(b"content-encoding", b"identity"), (b"content-encoding", b"GZip")]
    assert content_coding(Headers(raw=lines)) == "gzip"


@given(
    st.sampled_from(["gzip", "zlib", "raw", "members"]), st.binary(max_size=3000), st.integers(1, 7)
)
def test_chunks_may_end_anywhere(form: str, content: bytes, size: int) -> None:
    """A body is inflated to the same bytes wherever its chunks end."""
    compressed = {
        "gzip": lambda: gzip.compress(content, mtime=0),
        "zlib": lambda: zlib.compress(content),
        "raw": lambda: raw_deflate(content),
        "members": lambda: gzip.compress(content[:99]) + gzip.compress(content[99:]),
    }[form]()
    chunks = [compressed[at : at + size] for at in range(0, len(compressed), size)]
    coding = "gzip" if form in ("gzip", "members") else "deflate"
    assert inflate(coding, chunks) == content


@pytest.mark.parametrize("spare", [-1, 0, 1, 257])
def test_pieces_may_end_anywhere(monkeypatch: pytest.MonkeyPatch, spare: int) -> None:
    """Bytes that zlib has taken in but not given out yet are not lost where the body ends with a full piece."""
    monkeypatch.setattr(content_codings, "PIECE_BYTES", 512)
    content = b"a" * (512 * 3 + spare)
    assert inflate("gzip", [gzip.compress(content, mtime=0)]) == content
    assert inflate("deflate", [raw_deflate(content)]) == content


@pytest.mark.parametrize(
    "waste",
    [empty_blocks(3 * FREE_WASTE_BYTES // 5), gzip.compress(b"", mtime=0) * 1000],
    ids=["blocks", "members"],
)
def test_bytes_that_hold_nothing_are_no_progress(waste: bytes) -> None:
    """A body that goes on with blocks or members of no bytes is refused, however much it held before."""
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    begun = stream.compress(b"a" * 2**20)
    ended = waste.startswith(b"\x1f")
    begun += stream.flush() if ended else stream.flush(zlib.Z_SYNC_FLUSH)
    inflater = BodyInflater("gzip")
    assert sum(map(len, inflater.feed(begun))) == 2**20
    chunks = [waste[start : start + 100] for start in range(0, len(waste), 100)]
    with pytest.raises(BodyFormatError, match="hold nothing"):
        list(itertools.chain.from_iterable(map(inflater.feed, chunks)))


def test_small_pieces_that_are_flushed_are_progress() -> None:
    """A client that flushes its compressor after every twenty bytes is served."""
    stream = zlib.compressobj(6, zlib.DEFLATED, 31)
    content = [b'"%018d"' % number for number in range(5000)]
    chunks = [stream.compress(part) + stream.flush(zlib.Z_SYNC_FLUSH) for part in content]
    assert inflate("gzip", [*chunks, stream.flush()]) == b"".join(content)


async def test_a_large_body_gives_others_their_turn(api: Api) -> None:
    """While a body is inflated to many pieces other tasks run."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    body = json.dumps({"input": "alpha", "user": "x" * 12 * PIECE_BYTES}).encode()
    seen: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        seen.append(turns)
        yield gzip.compress(body, mtime=0)
        seen.append(turns)

    answer = await api.client.post(
        "/v1/embeddings", content=chunks(), headers={"content-encoding": "gzip"}
    )
    counting.cancel()
    assert answer.status_code == 200
    assert turns - seen[0] >= 12
