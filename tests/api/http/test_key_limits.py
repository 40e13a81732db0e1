"""Keys over HTTP in hard times: bursts at a limit, files that cannot be read, a Redis that servers share."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from nestvec.errors import QueueFullError
from nestvec.keys.records import KeyFile, KeyLimits

from tests.api.applications import Api, MakeApi
from tests.support.fakes import BAD_ID
from tests.support.served import ServedOptions
from tests.support.services import redis_server

TEXT = " ".join(["alpha"] * 12)  # 14 tokens


def add(path: Path, *, is_admin: bool = False, **limits: float) -> tuple[str, str]:
    """Add a key to a file; returns its id, and the key itself."""
    file = KeyFile.read(path)
    record, key = file.add("someone", KeyLimits(**limits), is_admin=is_admin)  # type: ignore[arg-type] # a test's own
    file.write()
    return record.id, key


def bearer(key: str) -> dict[str, str]:
    """Return the header that sends a key."""
    return {"authorization": f"Bearer {key}"}


async def burst(
    apis: list[Api], key: str, path: str, body: dict[str, object], count: int = 40
) -> list[httpx.Response]:
    """Send a request many times at once, to one server after the other."""
    return await asyncio.gather(
        *(
            apis[number % len(apis)].client.post(path, json=body, headers=bearer(key))
            for number in range(count)
        )
    )


@pytest.mark.parametrize(
    "limits", [{"tokens_per_min": 100}, {"monthly_tokens": 100}], ids=["minute", "month"]
)
@pytest.mark.parametrize(
    ("path", "field"), [("/v1/embeddings", "input"), ("/embed", "inputs"), ("/tokenize", "inputs")]
)
async def test_a_burst_overshoots_by_one_request(
    make_api: MakeApi, tmp_path: Path, limits: dict[str, Any], path: str, field: str
) -> None:
    """40 requests at once at a limit of 100 tokens run no more than 100 tokens and one request's."""
    number, key = add(tmp_path / "keys.json", **limits)
    api = make_api(
        ServedOptions(max_queue_tokens=10**6), keys_file=tmp_path / "keys.json", data_dir=tmp_path
    )
    answers = await burst([api], key, path, {field: [TEXT] * 2})
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    used = api.app.state.keys.usage.tokens_this_month(number)
    cost = used // statuses.count(200)
    assert 100 <= used <= 100 + cost


async def test_what_fails_costs_nothing(
    make_api: MakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that the engine refuses gives its tokens back."""
    number, key = add(tmp_path / "keys.json", tokens_per_min=20, monthly_tokens=20)
    api = make_api(keys_file=tmp_path / "keys.json", data_dir=tmp_path)
    run = api.served.backend.run

    def poisoned(batch: Any) -> Any:
        batch.arrays["ids"][:] = BAD_ID
        return run(batch)

    with monkeypatch.context() as failing:
        failing.setattr(api.served.backend, "run", poisoned)
        for _ in range(5):
            answer = await api.embed({"input": TEXT}, **bearer(key))
            assert answer.status_code == 500, answer.text
    assert api.app.state.keys.usage.tokens_this_month(number) == 0
    assert (await api.embed({"input": "alpha"}, **bearer(key))).status_code == 200
    for _ in range(5):
        body = {"ids": [[10**6] * 10]}
        answer = await api.client.post("/decode", json=body, headers=bearer(key))
        assert answer.status_code in (400, 422), answer.text
    assert api.app.state.keys.usage.tokens_this_month(number) < 20


async def test_what_has_run_is_counted(
    make_api: MakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose vectors are there has used its tokens, even where it is refused for what is said of its ids."""
    number, key = add(tmp_path / "keys.json", monthly_tokens=1000)
    api = make_api(keys_file=tmp_path / "keys.json", data_dir=tmp_path)

    async def full(*_: object) -> int:
        raise QueueFullError("full", retry_after_s=1.0)

    monkeypatch.setattr(api.served.service.token_calls, "count_unusual_ids", full)
    headers = {**bearer(key), "x-embed-token-vocab": "model"}
    answer = await api.embed({"input": [[2, 7, 3]]}, **headers)
    assert answer.status_code == 429, answer.text
    usage = api.app.state.keys.usage
    (used,) = usage.read(usage.current_month(), number)
    assert used.tokens == 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "a"}),
        ("/embed", {"inputs": "a"}),
        ("/api/embed", {"input": "a"}),
        ("/v2/embed", {"texts": ["a"], "input_type": "search_query"}),
    ],
)
async def test_keys_that_cannot_be_read(
    make_api: MakeApi, tmp_path: Path, path: str, body: dict[str, object]
) -> None:
    """Nobody is let in, each dialect says so in its own words, and health and metrics say so."""
    file = tmp_path / "keys.json"
    _, key = add(file)
    api = make_api(keys_file=file, data_dir=tmp_path)
    assert (await api.client.get("/health")).json() == {"status": "ready"}
    file.unlink()
    api.app.state.keys.reload()
    refused = await api.client.post(path, json=body, headers=bearer(key))
    assert refused.status_code == (429 if path == "/embed" else 503)  # TEI has one status for both
    assert refused.headers["retry-after"] == "2"
    assert "cannot read its API keys" in refused.text
    assert str(tmp_path) not in refused.text
    assert (await api.client.post(path, json=body)).status_code == 401
    health = await api.client.get("/health/ready")
    assert health.status_code == 503
    assert health.json()["reason"] == "keys_unreadable"
    assert "nestvec_keys_readable 0.0" in (await api.client.get("/metrics")).text


async def test_keys_of_the_settings_stay_good(make_api: MakeApi, tmp_path: Path) -> None:
    """Where the settings have a key, it is let in while the file cannot be read, and health stays good and says so."""
    api = make_api(keys_file=tmp_path / "keys.json", data_dir=tmp_path, api_keys=["k"])
    assert (await api.embed({"input": "a"}, **bearer("k"))).status_code == 200
    assert (await api.embed({"input": "a"}, **bearer("x"))).status_code == 503
    health = await api.client.get("/health")
    assert (health.status_code, health.json()) == (
        200,
        {"status": "ready", "reason": "keys_unreadable"},
    )


@pytest.mark.process
async def test_servers_share_rates_in_redis(make_api: MakeApi, tmp_path: Path) -> None:
    """Two servers with one Redis let in together what one would, of requests and of tokens."""
    file = tmp_path / "keys.json"
    _, slow = add(file, requests_per_s=4)
    _, small = add(file, tokens_per_min=100)
    with redis_server(tmp_path / "redis") as redis:
        apis = [
            make_api(keys_file=file, data_dir=tmp_path / name, rates_url=redis.url, replicas=2)
            for name in ("a", "b")
        ]
        answers = await burst(apis, slow, "/v1/embeddings", {"input": "a"}, count=12)
        statuses = [answer.status_code for answer in answers]
        assert 4 <= statuses.count(200) <= 6  # some come back while it lasts
        assert answers[0].headers["x-ratelimit-limit-requests"] == "4"
        answers = await burst(apis, small, "/v1/embeddings", {"input": [TEXT] * 2})
        tokens = [a.json()["usage"]["total_tokens"] for a in answers if a.status_code == 200]
        assert 100 <= sum(tokens) <= 105 + tokens[0]
        assert "nestvec_rate_store_down 0.0" in (await apis[0].client.get("/metrics")).text
        redis.stop()
        assert (await apis[0].embed({"input": "a"}, **bearer(slow))).status_code == 200
        assert "nestvec_rate_store_down 1.0" in (await apis[0].client.get("/metrics")).text
        for api in apis:
            await api.app.state.keys.close()
