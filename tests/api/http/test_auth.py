"""Keys with limits over HTTP: what they allow, what answers tell of their limits, what is counted."""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from nestvec.api.http.auth import format_duration
from nestvec.config.settings import Settings
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, Priority
from nestvec.jobs.store import JobStore
from nestvec.jobs.types import Purpose, StoredFile
from nestvec.keys.key_usage import KeyUsage
from nestvec.keys.records import KeyFile, KeyLimits
from nestvec.keys.usage_database import DATABASE_NAME, usage_engine
from nestvec.keys.usage_table import UsageTable
from nestvec.main import build_app

from tests.api.applications import Api, Jobs, MakeApi, line
from tests.api.routes.test_several_models import serving
from tests.support.job_store import add_file
from tests.support.tiny import write_tiny_bert

Embed = Callable[[EmbedCall], Awaitable[EmbedResult]]


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """The path of a file of keys."""
    return tmp_path / "keys.json"


def add(path: Path, **limits: object) -> tuple[str, str]:
    """Add a key to a file; returns its id, and the key itself."""
    file = KeyFile.read(path)
    record, key = file.add("someone", KeyLimits(**limits))  # type: ignore[arg-type] # a test's own
    file.write()
    return record.id, key


async def embed(api: Api, key: str, inputs: object = "alpha", **headers: str) -> httpx.Response:
    """POST to /v1/embeddings as the key's owner."""
    return await api.embed({"input": inputs}, authorization=f"Bearer {key}", **headers)


async def test_answers_tell_what_is_left(make_api: MakeApi, keys_file: Path) -> None:
    """Answers, refusals too, tell what is left of a key's limits in OpenAI's and the IETF's headers."""
    _, key = add(keys_file, requests_per_s=2, tokens_per_min=100)
    api = make_api(keys_file=keys_file)
    answers = [await embed(api, key, "alpha beta") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    tokens = answers[0].json()["usage"]["total_tokens"]
    first = answers[0].headers
    assert first["x-ratelimit-limit-requests"] == "2"
    assert first["x-ratelimit-remaining-requests"] == "1"
    assert first["x-ratelimit-limit-tokens"] == "100"
    assert int(first["x-ratelimit-remaining-tokens"]) == pytest.approx(100 - tokens, abs=1)
    assert first["ratelimit-policy"] == '"requests";q=2;w=1, "tokens";q=100;w=60'
    assert first["ratelimit"].startswith('"requests";r=1;t=1, "tokens";r=')
    refused = answers[2]
    assert refused.json()["error"] | {"message": ""} == {
        "message": "",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0ms"), (0.0301, "31ms"), (1.0, "1s"), (59.2, "1m0s"), (360.0, "6m0s")],
)
def test_durations_are_openais(seconds: float, text: str) -> None:
    """Durations in headers are written as OpenAI writes them."""
    assert format_duration(seconds) == text


async def test_a_month_that_is_used_up_is_no_reason_to_retry(
    make_api: MakeApi, keys_file: Path
) -> None:
    """A month that is used up has OpenAI's code for it, and the header that stops its clients from retrying."""
    number, key = add(keys_file, monthly_tokens=3)
    api = make_api(keys_file=keys_file)
    assert (await embed(api, key, "alpha beta gamma")).status_code == 200
    answer = await embed(api, key)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"
    metrics = (await api.client.get("/metrics")).text
    assert f'nestvec_rate_limited_total{{key_id="{number}",reason="quota"}} 1.0' in metrics
    assert f'nestvec_key_requests_total{{key_id="{number}"}} 2.0' in metrics
    assert f'nestvec_key_tokens_total{{key_id="{number}"}}' in metrics
    assert key not in metrics
    assert key.split("_", 2)[2] not in metrics


@pytest.mark.parametrize(
    ("path", "body", "tokens"),
    [
        ("/tokenize", {"inputs": ["alpha beta", "gamma"]}, 7),
        ("/tokenize", {"inputs": "alpha", "add_special_tokens": False}, 1),
        ("/decode", {"ids": [[5, 6, 7], [8]]}, 4),
        ("/decode", {"ids": [5, 6]}, 2),
    ],
)
async def test_tokens_that_are_only_looked_at_count_too(
    make_api: MakeApi, keys_file: Path, path: str, body: dict[str, object], tokens: int
) -> None:
    """/tokenize and /decode use up a key's tokens, tell what is left in the same headers, and end with them."""
    number, key = add(keys_file, monthly_tokens=tokens, tokens_per_min=60)
    api = make_api(keys_file=keys_file)
    headers = {"authorization": f"Bearer {key}"}
    answer = await api.client.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert api.app.state.keys.usage.tokens_this_month(number) == tokens
    assert answer.headers["x-ratelimit-limit-tokens"] == "60"
    # One comes back each second.
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(60 - tokens, abs=1)
    metrics = (await api.client.get("/metrics")).text
    assert f'nestvec_key_tokens_total{{key_id="{number}"}} {float(tokens)}' in metrics
    refused = await api.client.post(path, json=body, headers=headers)
    assert refused.status_code == 429
    assert (await embed(api, key)).status_code == 429


async def test_metrics_tell_no_digest_of_a_key(make_api: MakeApi, tmp_path: Path) -> None:
    """An id in /metrics cannot be made from a guess of the key, and stays the same where the data folder does."""
    ids: list[set[str]] = []
    for folder in (tmp_path / "one", tmp_path / "one", tmp_path / "two"):
        api = make_api(data_dir=folder, api_keys=["winter2026"])
        await embed(api, "winter2026")
        metrics = (await api.client.get("/metrics")).text
        ids.append(set(re.findall(r'key_requests_total\{key_id="([^"]+)"', metrics)))
        for size in (6, 8, 16, 32):
            digest = hashlib.blake2b(b"winter2026", digest_size=size).hexdigest()
            assert digest[:12] not in metrics
    assert len(ids[0]) == 1
    assert ids[0] == ids[1] != ids[2]


async def test_what_was_stored_under_an_earlier_id_is_kept(
    make_api: MakeApi, tmp_path: Path
) -> None:
    """Files, batches and usage of a key of the settings, stored under its plain digest, are its own after a start."""
    earlier = hashlib.blake2b(b"k", digest_size=6).hexdigest()
    table = UsageTable(usage_engine(tmp_path / DATABASE_NAME))
    table.make()
    table.add([KeyUsage(earlier, "2026-11", 2, 30)])
    table.close()
    store = JobStore(tmp_path, time.time)
    content = tmp_path / "parts" / "x"
    content.write_bytes(b"{}")
    file = StoredFile("file-1", earlier, Purpose.BATCH, "in.jsonl", 2, 1)
    add_file(store, file, content, 100)
    store.close()
    app = build_app(
        Settings(data_dir=tmp_path, api_keys=["k", "other"], model=str(tmp_path / "no"))
    )
    for _ in range(2):  # the second time there is nothing left to take over
        ids = app.state.keys.earlier_ids(["k", "other"])
        assert earlier in ids
        app.state.keys.usage.flush()
        assert app.state.keys.usage.read("2026-11") == [KeyUsage(ids[earlier], "2026-11", 2, 30)]
        store = JobStore(tmp_path, time.time)
        store.take_over(ids)
        assert store.stored_bytes(ids[earlier]) == 2
        assert store.stored_bytes(earlier) == 0
        store.close()


async def test_a_bulk_key_stays_bulk(make_api: MakeApi, keys_file: Path) -> None:
    """A key for bulk work stays in the bulk class, whatever priority its requests ask for."""
    _, bulk = add(keys_file, is_bulk_only=True)
    _, free = add(keys_file)
    api = make_api(keys_file=keys_file)
    seen: list[Priority | None] = []
    api.served.service.embed = _spy(api.served.service.embed, seen)  # type: ignore[method-assign, assignment] # a spy
    for key, word in ((bulk, "interactive"), (free, "interactive"), (free, "bulk")):
        await embed(api, key, f"beta {word}", x_embed_priority=word)
    assert seen == [Priority.BULK, Priority.INTERACTIVE, Priority.BULK]


def _spy(embed_call: Embed, seen: list[Priority | None]) -> Embed:
    async def spying(call: EmbedCall) -> EmbedResult:
        seen.append(call.priority)
        return await embed_call(call)

    return spying


async def test_a_client_that_leaves_is_charged(make_api: MakeApi, keys_file: Path) -> None:
    """A client that leaves before its answer is charged, or leaving early would be a way around every quota."""
    number, key = add(keys_file, tokens_per_min=1000)
    api = make_api(keys_file=keys_file)
    api.served.backend.gate.clear()
    body = json.dumps({"input": "alpha " * 12}).encode()
    sent = False

    async def receive() -> dict[str, object]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def send(_: object) -> None:
        """Nobody reads."""

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/embeddings",
        "raw_path": b"/v1/embeddings",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {key}".encode())],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("server", 80),
        "client": ("client", 1),
    }
    await api.app(scope, receive, send)
    api.served.backend.gate.set()
    assert api.app.state.keys.usage.tokens_this_month(number) == 14


async def test_a_key_sees_its_models_and_no_others(tmp_path: Path, keys_file: Path) -> None:
    """Models that a key may not use are not listed, not found and not chosen, on any route."""
    write_tiny_bert(tmp_path / "first")
    write_tiny_bert(tmp_path / "second")
    _, only = add(keys_file, models=("second",))
    _, all_of_them = add(keys_file)
    settings = {
        "model": str(tmp_path / "first"),
        "models": {"second": {"model": str(tmp_path / "second")}},
        "keys_file": keys_file,
    }
    async with serving(tmp_path, **settings) as client:
        free = {"authorization": f"Bearer {all_of_them}"}
        bound = {"authorization": f"Bearer {only}"}
        client.headers.update(free)
        listed = await client.get("/v1/models")
        for _ in range(400):
            listed = await client.get("/v1/models")
            if listed.status_code == 200 and {row["state"] for row in listed.json()["data"]} == {
                "ready"
            }:
                break
            await asyncio.sleep(0.02)
        ids = [row["id"] for row in listed.json()["data"]]
        assert ids[:2] == ["first", "second"]
        assert all(name.startswith("text-embedding-3-") for name in ids[2:])
        listed = await client.get("/v1/models", headers=bound)
        assert [row["id"] for row in listed.json()["data"]] == ["second"]
        answer = await client.post("/v1/embeddings", json={"input": "alpha"}, headers=bound)
        assert answer.json()["model"] == "second"
        request = {"model": "first", "input": "alpha"}
        for path, body in (
            ("/v1/embeddings", request),
            ("/v1/similarity", {**request, "query": "alpha", "documents": ["beta"]}),
            ("/api/embed", request),
            ("/api/show", {"model": "first"}),
        ):
            refused = await client.post(path, json=body, headers=bound)
            assert refused.status_code == 404, (path, refused.text)
            allowed = await client.post(path, json=body)
            assert allowed.status_code != 404, (path, allowed.text)
        for path in ("/v1/models/first", "/v2/models/first"):
            assert (await client.get(path, headers=bound)).status_code == 404
            assert (await client.get(path)).status_code == 200
        # The next request of another key on the same connection sees all again.
        assert (await client.post("/v1/embeddings", json=request)).status_code == 200


async def test_a_batch_is_its_keys_too(make_api: MakeApi, tmp_path: Path, keys_file: Path) -> None:
    """A batch's tokens count for its key's month, and its lines are refused once that is used up."""
    number, key = add(keys_file, monthly_tokens=10, tokens_per_min=1)
    api = make_api(keys_file=keys_file)
    api.client.headers["authorization"] = f"Bearer {key}"
    jobs = Jobs(api, tmp_path / "jobs", time.time)  # type: ignore[arg-type] # any clock
    jobs.open()
    try:
        batch = await jobs.until((await jobs.create(line("a", "alpha beta gamma delta")))["id"])
        assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
        used = api.app.state.keys.usage.tokens_this_month(number)
        assert used >= 6
        while api.app.state.keys.usage.tokens_this_month(number) < 10:
            await jobs.until((await jobs.create(line("a", "alpha beta gamma delta")))["id"])
        batch = await jobs.until((await jobs.create(line("b") + line("c")))["id"])
        assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
        rows = await jobs.rows(batch["error_file_id"])
        assert rows["b"]["response"]["body"]["error"]["code"] == "insufficient_quota"
    finally:
        await jobs.runner.close()


OPEN_TO_ALL = {
    *("/", "/health", "/health/live", "/health/ready", "/ping", "/metrics"),
    *("/console", "/console/{name}"),
    *("/docs", "/docs/oauth2-redirect", "/openapi.json", "/static-offline-docs"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/api/version"),
}


async def test_every_route_asks_for_a_key(make_api: MakeApi) -> None:
    """Every route asks for a key, except those that tell nothing; with `protect_operations`, metrics do too."""
    for protects, extra in ((False, set()), (True, {"/metrics"})):
        api = make_api(api_keys=["k"], admin_api=True, protect_operations=protects)
        routes = [
            (path, method)
            for path, methods in _paths(api)
            for method in methods - {"HEAD", "OPTIONS"}
            if path not in OPEN_TO_ALL - extra
        ]
        assert len(routes) > 40
        for path, method in routes:
            url = re.sub(r"\{[^}]*\}", "x", path)
            answer = await api.client.request(method, url, json={})
            assert answer.status_code == 401, (method, path, answer.text)
        answer = await api.client.get("/v2")
        assert answer.json()["version"] == ""


def _paths(api: Api) -> list[tuple[str, set[str]]]:
    """Return every path of the application, documented or not, and its methods."""
    app: Any = api.app
    while not hasattr(app, "routes"):
        app = app._app
    routes: list[Any] = []
    for route in app.routes:  # an included router is one of them, and has routes of its own
        routes += [route] if hasattr(route, "path") else route.original_router.routes
    return [(route.path, set(getattr(route, "methods", None) or ())) for route in routes]
