"""Limits on what callers send, and the middleware in front of the application."""

import asyncio
import gzip
import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.api.middleware import OPERATIONS
from nestvec.config.settings import Settings
from nestvec.errors import BodyFormatError
from nestvec.main import ProcessRole, build_app
from nestvec.system.json_bodies import MAX_COST, JsonLimits, check_bounds, parse_json

from tests.api.applications import MakeApi
from tests.support.asgi import ask
from tests.support.served import serve_fake

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


def depth_of(value: object) -> int:
    """Return how deep lists and objects are nested."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    is_container = isinstance(value, dict | list)
    return is_container + max((depth_of(item) for item in inner), default=0)


@given(JSON, st.integers(1, 8))
def test_depth_is_measured_exactly(value: object, max_depth: int) -> None:
    """JSON nested deeper than the limit is refused; brackets inside strings do not count."""
    body = json.dumps(value).encode()
    if depth_of(value) > max_depth + 1:
        with pytest.raises(BodyFormatError, match="nested"):
            parse_json(body, JsonLimits(max_depth))
    else:
        assert parse_json(body, JsonLimits(max_depth)) == value


@given(st.lists(st.text() | st.integers() | st.lists(st.just('"')), max_size=20), st.booleans())
def test_values_are_counted_outside_of_strings(items: list[object], spoil: bool) -> None:  # noqa: FBT001 - hypothesis's
    """Values are counted outside of strings only; quotes, backslashes and commas inside strings do not mislead."""
    tricky = [*items, '\\", [{,' * 50, "\\" * 3, 'a"b,']
    bulk: list[object] = [0] * (MAX_COST + 10) if spoil else [",[{" * (MAX_COST // 3 + 10)]
    body = json.dumps([tricky, bulk]).encode()
    if spoil:
        with pytest.raises(BodyFormatError, match="values"):
            check_bounds(body, JsonLimits())
    else:
        check_bounds(body, JsonLimits())


async def test_a_body_of_too_many_values_is_refused(make_api: MakeApi) -> None:
    """A body of too many values is refused, as it would block the event loop; one as large of texts is parsed."""
    api = make_api()
    many = b'{"input": [' + b",".join([b'{"a":1}'] * 200_000) + b"]}"
    answer = await api.client.post("/v1/embeddings", content=many)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "request_too_large"
    long = {"input": ["alpha, beta, " * 20] * 8000}
    answer = await api.client.post("/v1/embeddings", json=long)
    assert "2048 inputs" in answer.json()["error"]["message"]


async def test_deep_bodies_are_refused(make_api: MakeApi) -> None:
    """Bodies are refused beyond the depth of the setting, and beyond what the parser can take."""
    api = make_api(max_json_depth=6)
    for depth, status in ((6, 200), (9, 400), (900, 400), (100_000, 400)):
        nested = b"[" * depth + b"]" * depth
        body = b'{"input": "alpha", "user": ' + nested + b"}"
        answer = await api.client.post("/v1/embeddings", content=body)
        assert answer.status_code == status, depth


async def test_a_bomb_is_stopped_before_it_has_gone_off(make_api: MakeApi) -> None:
    """A hundred megabytes of spaces in a hundred kilobytes are refused; also as zlib, also compressed twice."""
    api = make_api(max_body_bytes=2**20, max_in_flight_bytes=4 * 2**20)
    bomb = gzip.compress(b" " * 100 * 2**20)
    for content, coding in (
        (bomb, "gzip"),
        (zlib.compress(b" " * 100 * 2**20), "deflate"),
        (gzip.compress(bomb), "gzip"),
    ):
        answer = await api.client.post(
            "/v1/embeddings", content=content, headers={"content-encoding": coding}
        )
        assert answer.status_code in (400, 413)
    assert api.app.state.body_memory.held_bytes == 0


async def test_bodies_under_way_are_bounded_together(make_api: MakeApi) -> None:
    """A body beyond the shared budget gets 429; the memory is given back, whatever becomes of the requests."""
    api = make_api(max_in_flight_bytes=1500)
    api.served.backend.gate.clear()
    body = json.dumps({"input": "alpha", "user": "x" * 900})
    first = asyncio.create_task(api.client.post("/v1/embeddings", content=body))
    while not api.served.backend.batches and not api.app.state.body_memory.held_bytes:
        await asyncio.sleep(0.001)
    refused = await api.client.post("/v1/embeddings", content=body)
    assert refused.status_code == 429
    assert refused.headers["retry-after"]
    assert "nestvec_in_flight_body_bytes 9" in (await api.client.get("/metrics")).text
    api.served.backend.gate.set()
    assert (await first).status_code == 200
    assert api.app.state.body_memory.held_bytes == 0
    assert (await api.client.post("/v1/embeddings", content=body)).status_code == 200
    await api.client.post("/v1/embeddings", content=b"{" * 800)
    await api.client.post("/api/embed", content=b"x" * 1600)
    assert api.app.state.body_memory.held_bytes == 0


async def test_hosts_that_are_not_ours_are_refused(make_api: MakeApi) -> None:
    """Requests for other hosts are refused, except health checks, which come by address."""
    api = make_api(trusted_hosts=["server", "*.example.org"])
    for host, status in (("server", 200), ("a.example.org", 200), ("evil.test", 400)):
        answer = await api.client.get("/v1/models", headers={"host": host})
        assert answer.status_code == status, host
    assert (await api.client.get("/health", headers={"host": "10.0.0.7"})).status_code == 200


async def test_browsers_are_let_in_by_origin_only(make_api: MakeApi) -> None:
    """Browsers may call from the origins of the setting only, with the headers that SDKs send; by default from none."""
    preflight_headers = {
        "origin": "https://app.test",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    closed = await make_api().client.options("/v1/embeddings", headers=preflight_headers)
    assert "access-control-allow-origin" not in closed.headers
    api = make_api(cors_origins=["https://app.test"])
    preflight = await api.client.options("/v1/embeddings", headers=preflight_headers)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.test"
    answer = await api.client.post(
        "/v1/embeddings", json={"input": "alpha"}, headers={"origin": "https://app.test"}
    )
    assert answer.headers["access-control-allow-origin"] == "https://app.test"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    other = await api.client.options(
        "/v1/embeddings", headers={**preflight_headers, "origin": "https://x"}
    )
    assert "access-control-allow-origin" not in other.headers


async def test_pages_may_not_be_framed_or_fetch(make_api: MakeApi) -> None:
    """Pages cannot be framed or fetch from elsewhere, answers are not sniffed, only open servers tell their version."""
    api = make_api()
    page = await api.client.get("/", headers={"accept": "text/html"})
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    docs = await api.client.get("/docs")
    assert docs.headers["x-frame-options"] == "DENY"
    for answer in (page, docs, await api.client.get("/v1/models"), await api.client.get("/x")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
    assert "Nestvec 0" in page.text
    closed = make_api(api_keys=["k"])
    page = await closed.client.get("/", headers={"accept": "text/html"})
    assert "Nestvec 0" not in page.text


async def test_operators_have_a_port_of_their_own(tiny_folder: Path, tmp_path: Path) -> None:
    """The operators' port serves /metrics, /admin and health checks, and the common port everything else."""
    settings = Settings(data_dir=tmp_path, admin_keys=["k"], admin_api=True)
    app = build_app(settings, process_role=ProcessRole(operations_port=9000))
    served = serve_fake(tiny_folder / "tokenizer.json", also_tell=app.state.metrics.engine)
    app.state.become_ready(served.service)
    try:
        for port, path, status in (
            (9000, "/metrics", 200),
            (8080, "/metrics", 404),
            (9000, "/admin/models", 200),
            (8080, "/admin/models", 404),
            (9000, "/v1/models", 404),
            (8080, "/v1/models", 200),
            (9000, "/health", 200),
            (8080, "/health", 200),
        ):
            answered, _ = await ask(app, path, port)
            assert answered == status, (port, path)
        assert set(OPERATIONS) == {"/metrics", "/admin"}
    finally:
        served.service.close()


async def test_under_a_path_of_a_proxy(make_api: MakeApi) -> None:
    """Behind a proxy's path the routes answer as before, and the docs link to the path that callers see."""
    api = make_api(root_path="/embeddings/")
    assert (await api.client.get("/v1/models")).status_code == 200
    document = (await api.client.get("/openapi.json")).json()
    assert document["servers"] == [{"url": "/embeddings"}]
    page = (await api.client.get("/docs")).text
    assert "/embeddings/openapi.json" in page
