"""Several models in one server, over HTTP: which one answers, and which are listed and loaded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.config.settings import Settings
from nestvec.main import build_app

from tests.model_store.heads.serving import write_case
from tests.model_store.sources.test_adapters import write_adapter
from tests.support.tiny import write_json, write_tiny_bert

KEY = "a-key-of-sixteen"
AUTH = {"authorization": f"Bearer {KEY}"}


@asynccontextmanager
async def serving(tmp_path: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Run the whole application with its lifespan: models load as at a server's start."""
    values = {"cache_dir": tmp_path / "cache", "data_dir": tmp_path / "data", **settings}
    app = build_app(Settings(**values))
    sent = asyncio.Event()
    stop = asyncio.Event()

    async def receive() -> dict[str, str]:
        if sent.is_set():
            await stop.wait()
            return {"type": "lifespan.shutdown"}
        sent.set()
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        assert "failed" not in message["type"], message

    running = asyncio.create_task(app({"type": "lifespan"}, receive, send))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://server", timeout=30
    ) as client:
        yield client
    stop.set()
    await running


async def until(client: httpx.AsyncClient, **wanted: str) -> dict[str, Any]:
    """Wait until models are in the states wanted; returns all listed models by id."""
    answer: httpx.Response | None = None
    for _ in range(400):
        answer = await client.get("/v1/models", headers=AUTH)
        if answer.status_code == 200:
            models = {row["id"]: row for row in answer.json()["data"]}
            if all(models[name]["state"] == state for name, state in wanted.items()):
                return models
        await asyncio.sleep(0.02)
    raise AssertionError(answer.text if answer is not None else "")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Folders of an embedder, another with other weights, a re-ranker and a sparse model."""
    paths = {name: tmp_path / name for name in ("first", "second", "ranks", "terms")}
    write_tiny_bert(paths["first"])
    write_tiny_bert(paths["second"], seed=8)
    write_case(paths["ranks"], "reranker")
    write_case(paths["terms"], "splade/bert")
    modules = [
        {"path": "", "type": "sentence_transformers.sparse_encoder.models.MLMTransformer"},
        {
            "path": "1_SpladePooling",
            "type": "sentence_transformers.sparse_encoder.models.SpladePooling",
        },
    ]
    write_json(paths["terms"] / "modules.json", modules)
    write_json(paths["terms"] / "1_SpladePooling/config.json", {})
    return paths


def table(folders: dict[str, Path], **more: Any) -> dict[str, Any]:
    """Return the settings of further models, each under its folder's name."""
    return {name: {"model": str(folders[name]), **more} for name in ("second", "ranks", "terms")}


async def test_each_route_is_answered_by_a_model_that_can(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    """A route is answered by the first model that can, as TEI's bodies name none, or by the one that the body names."""
    async with serving(tmp_path, model=str(folders["first"]), models=table(folders)) as client:
        ready = dict.fromkeys(("first", "second", "ranks", "terms"), "ready")
        listed = await until(client, **ready)
        assert listed["ranks"]["outputs"] == ["labels"]
        assert listed["terms"]["outputs"] == ["sparse"]
        assert listed["first"]["space"] != listed["second"]["space"]

        async def vector(model: str) -> Any:
            body = {"input": "alpha", **({"model": model} if model else {})}
            answer = await client.post("/v1/embeddings", json=body)
            assert answer.status_code == 200, answer.text
            return np.array(answer.json()["data"][0]["embedding"])

        vectors = {name: await vector(name) for name in ("", "first", "second")}
        np.testing.assert_array_equal(vectors[""], vectors["first"])
        assert np.abs(vectors["first"] - vectors["second"]).max() > 0.01
        openai = await vector("text-embedding-3-small")
        np.testing.assert_array_equal(openai, vectors["first"])
        embedded = await client.post("/embed", json={"inputs": "alpha"})
        np.testing.assert_allclose(embedded.json()[0], vectors["first"], atol=1e-6)
        ranked = await client.post("/rerank", json={"query": "alpha", "texts": ["a", "red"]})
        assert ranked.status_code == 200
        sparse = await client.post("/embed_sparse", json={"inputs": "alpha"})
        assert sparse.json()[0]
        body = {"query": "alpha", "documents": ["a", "red"], "model": "first"}
        by_cosine = await client.post("/v2/rerank", json=body)
        assert by_cosine.headers["x-embed-score"] == "cosine"
        del body["model"]
        by_ranks = await client.post("/v2/rerank", json=body)
        assert by_ranks.headers["x-embed-score"] == "cross-encoder"
        for name in ("ranks", "terms"):
            refused = await client.post("/v1/embeddings", json={"input": "a", "model": name})
            assert refused.status_code == 400
        unknown = await client.post("/v1/embeddings", json={"input": "a", "model": "nobody"})
        assert unknown.status_code == 404


async def test_a_broken_model_leaves_the_others_serving(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    """A broken model is listed as failed and its callers get 503, while the others serve; also if it is the first."""
    (folders["second"] / "model.safetensors").write_bytes(b"damaged")
    (folders["ranks"] / "config.json").unlink()
    settings = {"model": str(folders["ranks"]), "admin_keys": [KEY], "admin_api": True}
    models = {
        "good": {"model": str(folders["first"])},
        "bad": {"model": str(folders["second"])},
    }
    async with serving(tmp_path, **settings, models=models) as client:
        await until(client, good="ready", bad="failed")
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        body = {"input": "alpha", "model": "good"}
        assert (await client.post("/v1/embeddings", json=body, headers=AUTH)).status_code == 200
        answer = await client.post("/v1/embeddings", json={**body, "model": "bad"}, headers=AUTH)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "damaged" not in answer.text
        assert str(tmp_path) not in answer.text
        rows = (await client.get("/admin/models", headers=AUTH)).json()["models"]
        assert [row["state"] for row in rows] == ["failed", "ready", "failed"]
        assert "model.safetensors" in rows[2]["error"]


async def test_a_model_on_first_use(tmp_path: Path, folders: dict[str, Path]) -> None:
    """A model for first use is not read before its first request, and so nothing is known of it."""
    models = table(folders, load="first_use")
    async with serving(tmp_path, model=str(folders["first"]), models=models) as client:
        listed = await until(client, first="ready", second="unloaded")
        assert listed["second"]["dimensions"] is None
        answer = await client.post("/v1/embeddings", json={"input": "a", "model": "second"})
        assert answer.status_code == 200
        listed = await until(client, second="ready", ranks="unloaded")
        assert listed["second"]["dimensions"]["native"] == 32


async def test_operators_load_and_unload(tmp_path: Path, folders: dict[str, Path]) -> None:
    """Operators load and unload models with a key only; the next request brings a model back."""
    settings = {"model": str(folders["first"]), "admin_keys": [KEY], "admin_api": True}
    async with serving(tmp_path, **settings, models=table(folders)) as client:
        await until(client, first="ready", second="ready", ranks="ready", terms="ready")
        for path in ("/admin/models/load", "/admin/models/unload"):
            assert (await client.post(path, json={"model": "second"})).status_code == 401
        assert (await client.get("/admin/models")).status_code == 401
        body = {"model": "second"}
        answer = await client.post("/admin/models/unload", json=body, headers=AUTH)
        assert answer.json()["state"] == "unloaded"
        metrics = (await client.get("/metrics", headers=AUTH)).text
        assert 'nestvec_model_loaded{model="second"} 0.0' in metrics
        answer = await client.post("/admin/models/load", json=body, headers=AUTH)
        assert answer.json()["state"] == "ready"
        await client.post("/admin/models/unload", json=body, headers=AUTH)
        embed = {"input": "a", "model": "second"}
        assert (await client.post("/v1/embeddings", json=embed, headers=AUTH)).status_code == 200
        for wrong, status in (({}, 400), ({"model": "nobody"}, 404), ({"model": 7}, 400)):
            answer = await client.post("/admin/models/load", json=wrong, headers=AUTH)
            assert answer.status_code == status


async def test_operators_routes_are_off_by_default(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    """Operators' routes are off by default: 404, as for any path that is not there."""
    async with serving(tmp_path, model=str(folders["first"])) as client:
        await until(client, first="ready")
        assert (await client.get("/admin/models")).status_code == 404


async def test_aliases_pin_options_of_any_model(tmp_path: Path, folders: dict[str, Path]) -> None:
    """An alias stands for the second model with a prompt and dimensions."""
    aliases = {"short": {"model": "second", "dimensions": 4, "prompt_name": "query"}}
    settings = {"model": str(folders["first"]), "models": table(folders), "aliases": aliases}
    async with serving(tmp_path, **settings) as client:
        await until(client, first="ready", second="ready")
        answer = await client.post("/v1/embeddings", json={"input": "alpha", "model": "short"})
        full = {"input": "alpha", "model": "second", "dimensions": 4, "prompt_name": "query"}
        expected = await client.post("/v1/embeddings", json=full)
    assert answer.json()["data"] == expected.json()["data"]


async def test_models_come_and_go_under_load(tmp_path: Path, folders: dict[str, Path]) -> None:
    """Every answer is right while models under load are unloaded and loaded again."""
    settings = {"model": str(folders["first"]), "admin_keys": [KEY], "admin_api": True}
    async with serving(tmp_path, **settings, models=table(folders)) as client:
        await until(client, first="ready", second="ready", ranks="ready", terms="ready")

        async def ask(model: str) -> list[float]:
            body = {"input": "the red one", "model": model}
            answer = await client.post("/v1/embeddings", json=body, headers=AUTH)
            assert answer.status_code == 200, answer.text
            vector: list[float] = answer.json()["data"][0]["embedding"]
            return vector

        expected = {name: await ask(name) for name in ("first", "second")}
        is_over = False
        answered = 0

        async def caller(number: int) -> None:
            nonlocal answered
            while not is_over:
                name = ("first", "second")[number % 2]
                assert await ask(name) == pytest.approx(expected[name], abs=1e-5)
                ranked = {"query": "alpha", "documents": ["a"], "model": "ranks"}
                answer = await client.post("/v2/rerank", json=ranked, headers=AUTH)
                assert answer.status_code == 200
                answered += 1

        callers = [asyncio.create_task(caller(number)) for number in range(8)]
        for _ in range(12):
            for name in ("second", "ranks"):
                body = {"model": name}
                answer = await client.post("/admin/models/unload", json=body, headers=AUTH)
                assert answer.status_code == 200, answer.text
                await asyncio.sleep(0.02)
        is_over = True
        await asyncio.gather(*callers)
    assert answered > 20


async def test_adapters_are_chosen_by_task(tmp_path: Path, folders: dict[str, Path]) -> None:
    """A task chooses its adapter, no task means the base, and a task without an adapter is refused."""
    adapters = {}
    for number, task in enumerate(("retrieval.query", "text-matching")):
        write_adapter(tmp_path / task, 0.1 * (number + 1))
        adapters[task] = str(tmp_path / task)
    settings: dict[str, Any] = {"model": str(folders["second"])}
    settings["models"] = {"first": {"model": str(folders["first"]), "adapters": adapters}}
    async with serving(tmp_path, **settings) as client:
        await until(client, second="ready", first="ready", **{"first:text-matching": "unloaded"})

        async def vector(**more: Any) -> Any:
            body = {"input": "the red one", "model": "first", **more}
            answer = await client.post("/v1/embeddings", json=body)
            assert answer.status_code == 200, answer.text
            return np.array(answer.json()["data"][0]["embedding"])

        base = await vector()
        vectors = {task: await vector(task=task) for task in adapters}
        by_name = await vector(model="first:text-matching")
        by_jina = await vector(task="text-matching", normalized=True)
        for by_other_way in (by_name, by_jina):
            np.testing.assert_allclose(by_other_way, vectors["text-matching"], atol=1e-6)
        assert np.abs(base - vectors["retrieval.query"]).max() > 1e-3
        assert np.abs(vectors["retrieval.query"] - vectors["text-matching"]).max() > 1e-3
        wrong = {"input": "a", "model": "first", "task": "separation"}
        answer = await client.post("/v1/embeddings", json=wrong)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "task"
        without = {"input": "a", "model": "second", "task": "text-matching"}
        answer = await client.post("/v1/embeddings", json=without)
        assert answer.status_code == 200  # it has no adapters: a task is a role there


async def test_two_entries_of_one_folder(tmp_path: Path, folders: dict[str, Path]) -> None:
    """A folder in two precisions: each id is its own entry's, before and after both are loaded."""
    entry = {"model": str(folders["first"]), "precision": "int8", "load": "first_use"}
    settings = {"model": str(folders["first"]), "precision": "fp32", "models": {"fast": entry}}
    async with serving(tmp_path, **settings) as client:
        before = await until(client, first="ready")
        assert list(before)[:2] == ["first", "fast"]
        for name in ("first", "fast", "first"):
            answer = await client.post("/v1/embeddings", json={"model": name, "input": "alpha"})
            assert answer.status_code == 200, answer.text
        models = await until(client, first="ready", fast="ready")
        assert list(models)[:2] == ["first", "fast"]
        assert models["first"]["precision"] == "fp32"
        assert (await client.get("/v1/models/first")).json()["root"] == "first"
        assert "first" not in models["fast"]["aliases"]
        assert models["fast"]["precision"] == "int8"
