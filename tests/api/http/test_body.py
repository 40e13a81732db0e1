"""Bodies as clients really send them, and broken ones."""

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.errors import InputError
from nestvec.system.json_bodies import parse_json

from tests.api.applications import Api, MakeApi

OK = b'{"input": "alpha"}'


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "text/plain", "application/x-www-form-urlencoded", "???"],
)
async def test_any_content_type_is_json(api: Api, content_type: str | None) -> None:
    """A body is read as JSON whatever its content type; tritonclient and litellm send none at all."""
    headers = {} if content_type is None else {"content-type": content_type}
    assert (await api.client.post("/v1/embeddings", content=OK, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(OK, mtime=0)),
        ("x-gzip", gzip.compress(OK, mtime=0)),
        ("deflate", zlib.compress(OK)),
        ("identity", OK),
        ("GZIP", gzip.compress(OK, mtime=0)),
    ],
)
async def test_compressed_bodies(api: Api, coding: str, body: bytes) -> None:
    """Bodies are inflated from gzip and deflate, whose names are matched in upper or lower case."""
    headers = {"content-encoding": coding}
    assert (
        await api.client.post("/v1/embeddings", content=body, headers=headers)
    ).status_code == 200


@pytest.mark.parametrize(
    ("coding", "body"),
    [("gzip", b"not gzip"), ("gzip", gzip.compress(OK, mtime=0)[:-9]), ("br", OK), ("zstd", OK)],
    ids=["not gzip", "cut off", "brotli", "zstd"],
)
async def test_broken_compression_is_400(api: Api, coding: str, body: bytes) -> None:
    """A body that cannot be inflated, or in an unknown encoding, is refused with a code for that."""
    answer = await api.client.post(
        "/v1/embeddings", content=body, headers={"content-encoding": coding}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_encoding")


async def test_bodies_over_the_limit_are_413(make_api: MakeApi) -> None:
    """A body over the limit is refused, whether its length is declared, or it is chunked or hidden in a gzip bomb."""
    api = make_api(max_body_bytes=2000)

    async def chunks() -> Any:
        for _ in range(10):
            yield b" " * 500

    bomb = gzip.compress(b" " * 50_000_000, mtime=0)
    assert len(bomb) > 2000
    small_bomb = gzip.compress(b" " * 1_000_000, mtime=0)
    for content, headers in [
        (b" " * 3000, {}),
        (chunks(), {}),
        (small_bomb, {"content-encoding": "gzip"}),
    ]:
        answer = await api.client.post("/v1/embeddings", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert (await api.client.post("/v1/embeddings", content=OK)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'"text"',
        b"null",
        b'{"input": NaN}',
        b'{"input": ["a"], "dimensions": Infinity}',
        b'{"input": -Infinity}',
        b'{"input": "\xff\xfe"}',
        b'{"input": "a",}',
        b'{"input": "a"} x',
        b"[" * 100_000,
        b'{"input":' * 100_000,
        b'{"input": 1' + b"0" * 10_000 + b"}",
    ],
    ids=lambda body: repr(body[:30]),
)
async def test_broken_json_is_400(api: Api, body: bytes) -> None:
    """Whatever is not a JSON object is refused in OpenAI's form, and the server goes on serving."""
    answer = await api.client.post("/v1/embeddings", content=body)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert (await api.client.post("/v1/embeddings", content=OK)).status_code == 200


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"input": "a\\ud800b"}', "a\ufffdb"),
        (b'{"input": "\\udc00"}', "\ufffd"),
        (b'{"input": "\\ud83d\\ude42"}', "🙂"),
        (b'\xef\xbb\xbf{"input": "alpha"}', "alpha"),
        (b'{"input": "a\\u0000b"}', "a\x00b"),
    ],
    ids=["high surrogate", "low surrogate", "a pair", "byte order mark", "NUL"],
)
async def test_odd_unicode_is_accepted(api: Api, body: bytes, text: str) -> None:
    """Lone surrogates become U+FFFD, and the vector is that of the mended text."""
    odd = await api.client.post("/v1/embeddings", content=body)
    plain = await api.embed({"input": text})
    assert odd.status_code == 200
    assert odd.json()["data"] == plain.json()["data"]


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_parse_json_reads_what_json_writes(value: Any) -> None:
    """What `json` writes is read back, whichever of the two parsers takes it."""
    clean = json.loads(json.dumps(value))
    parsed = parse_json(json.dumps(value).encode())
    if all(abs(i) < 2**63 for i in integers(value)):
        assert parsed == clean


def integers(value: Any) -> list[int]:
    """Return all integers in a value."""
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        return [value]
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    )
    return [i for child in children for i in integers(child)]


@given(data=st.binary(max_size=60))
def test_parse_json_never_crashes(data: bytes) -> None:
    """Bytes are JSON or an InputError, and nothing else is raised."""
    try:
        parsed = parse_json(data)
    except InputError as error:
        parsed = error.code
    assert parsed == "invalid_json" or data.strip()
