"""Paths that are forgiven, and HEAD on every route that has GET."""

import re

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from hypothesis import given
from hypothesis import strategies as st
from nestvec.api.request_context import tolerant_path
from nestvec.config.settings import Settings
from nestvec.main import build_app

from tests.api.applications import Api, Jobs, MakeApi


@pytest.mark.parametrize(
    "path",
    [
        *("//v1/embeddings", "/v1//embeddings", "/v1///embeddings//", "/v1/embeddings/"),
        *("/v1/v1/embeddings", "/v1/v1/v1//embeddings", "/v1//v1/embeddings", "/embeddings"),
        *("/openai/v1/embeddings", "/openai//embeddings", "/v1/%2Fembeddings"),
    ],
)
async def test_slips_in_base_urls_are_forgiven(api: Api, path: str) -> None:
    """Doubled and trailing slashes, a doubled /v1 and Azure's prefix lead to the route that was meant."""
    answer = await api.client.post(f"http://server{path}", json={"input": "alpha"})
    assert answer.status_code == 200


@given(st.lists(st.sampled_from(["/", "//", "v1", "/v1/", "openai", "embeddings", "a"])))
def test_forgiving_ends(parts: list[str]) -> None:
    """What comes of a path has no doubled slash and none at its end, and nothing more comes of it but by a prefix."""
    path = tolerant_path("/" + "".join(parts))
    assert "//" not in path
    assert path == "/" or not path.endswith("/")
    assert not path.startswith("/v1/v1/")


def test_forgiving_is_linear() -> None:
    """A path of any length costs one pass."""
    assert tolerant_path("/v1" * 20_000 + "/x") == "/v1/x"


async def test_head_is_answered_as_get_without_a_body(jobs: Jobs) -> None:
    """HEAD has GET's status and headers on every route, with no body; the content of a file is not read for it."""
    api, content = jobs.api, b'{"a": 1}\n'
    file = (await jobs.upload(content)).json()["id"]
    app = build_app(Settings())
    paths = [
        route.path
        for route in iter_route_contexts(_application(app).routes)
        if route.path and "GET" in (route.methods or ()) and "{" not in route.path
    ]
    assert len(paths) > 15
    for path in (*paths, "/v1/models/tiny", f"/v1/files/{file}", f"/v1/files/{file}/content", "/x"):
        got, head = await api.client.get(path), await api.client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers.get("content-type") == got.headers.get("content-type"), path
    assert (await api.client.head("/x")).status_code == 404
    assert (await api.client.head("/v1/embeddings")).status_code == 405
    length = (await api.client.head(f"/v1/files/{file}/content")).headers["content-length"]
    assert length == str(len(content))


async def test_head_is_not_documented(api: Api) -> None:
    """The OpenAPI document lists no HEAD: every GET has it."""
    document = (await api.client.get("/openapi.json")).json()
    assert not any("head" in operations for operations in document["paths"].values())
    metrics = await _counted(api)
    await api.client.head("/v1/models")
    assert await _counted(api) == metrics + 1


async def _counted(api: Api) -> int:
    text = (await api.client.get("/metrics")).text
    found = re.search(r'nestvec_requests_total\{[^}]*route="/v1/models"[^}]*\} (\d+)', text)
    return int(found[1]) if found else 0


def _application(wrapped: object) -> FastAPI:
    """Return the application inside of its middleware."""
    while not isinstance(wrapped, FastAPI):
        wrapped = vars(wrapped)["_app"]
    return wrapped


async def test_under_a_root_path_slips_are_forgiven_too(make_api: MakeApi) -> None:
    """Below a root path the same is forgiven, whether or not the proxy takes it off."""
    api = make_api(root_path="nestvec/")
    for path in ("/nestvec/v1/embeddings", "//nestvec//v1/v1/embeddings/", "/v1//embeddings"):
        answer = await api.client.post(f"http://server{path}", json={"input": "alpha"})
        assert answer.status_code == 200, path
    wrong = await api.client.post("/nestvec/api/embedding", json={})
    assert "Invalid URL (POST /api/embedding). Did you mean POST /api/embeddings?" in wrong.text
