"""Recipes over HTTP: listed, found by name in every dialect, and answered by their parts."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.config.recipe_settings import RecipeSettings
from nestvec.errors import ConfigError
from nestvec.keys.records import KeyFile, KeyLimits
from numpy.typing import NDArray

from tests.api.routes.test_several_models import AUTH, KEY, serving, until
from tests.support.tiny import write_tiny_bert

RECIPES: dict[str, Any] = {
    "both": {"combine": "concat", "parts": [{"weight": 3}, {"model": "second", "weight": 1}]},
    "half": {"combine": "mean", "parts": [{"prompt": ""}, {"prompt": "query : "}]},
    "views": {
        "combine": "views",
        "parts": [{"view": "plain"}, {"view": "é", "model": "second", "dimensions": 8}],
    },
    "any": {
        "allow_spaces": True,
        "route": [{"when": "tokens > 4", "model": "second"}, {"prompt_name": "query"}],
    },
}


def tables(**recipes: Any) -> dict[str, RecipeSettings]:
    """Return settings of recipes."""
    return {name: RecipeSettings(**value) for name, value in recipes.items()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tiny models, and with what is exported of them."""
    folder = tmp_path_factory.mktemp("recipes")
    write_tiny_bert(folder / "first")
    write_tiny_bert(folder / "second", seed=8)
    return folder


@asynccontextmanager
async def recipes_served(
    home: Path, tmp_path: Path, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve two tiny models and recipes of them."""
    first, second = home / "first", home / "second"
    values = {
        "models": {"second": {"model": str(second)}},
        "recipes": tables(**RECIPES),
        **settings,
    }
    values["cache_dir"] = home / "cache"
    async with serving(tmp_path, model=str(first), **values) as client:
        yield client


async def vectors_of(
    client: httpx.AsyncClient, model: str, *texts: str, **body: Any
) -> NDArray[Any]:
    """Embed texts by OpenAI's route."""
    answer = await client.post("/v1/embeddings", json={"input": texts, "model": model, **body})
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]])


async def test_recipes_are_models_of_every_dialect(home: Path, tmp_path: Path) -> None:
    """They are listed with their parts, and answer by name wherever one vector a text has its place."""
    async with recipes_served(home, tmp_path) as client:
        listed = await until(client, both="ready", second="ready", any="ready")
        assert listed["both"]["dimensions"] == {"native": 64, "range": [64, 64], "trained": [64]}
        assert listed["both"]["combine"] == "concat"
        assert listed["both"]["parts"] == [
            {"model": "first", "weight": 3.0},
            {"model": "second", "weight": 1.0},
        ]
        assert listed["any"]["parts"][0] == {"model": "second", "when": "tokens > 4"}
        assert "parts" not in listed["first"]
        one, two = [await vectors_of(client, name, "alpha", "red") for name in ("first", "second")]
        joined = np.hstack([one * np.sqrt(0.75), two * np.sqrt(0.25)])
        answer = await client.post(
            "/v1/embeddings", json={"input": ["alpha", "red"], "model": "both"}
        )
        content = answer.json()
        np.testing.assert_allclose([row["embedding"] for row in content["data"]], joined, atol=1e-6)
        assert answer.headers["x-embed-space"] == listed["both"]["space"]
        assert listed["both"]["space"] not in (listed["first"]["space"], listed["second"]["space"])
        assert content["model"] == "both"
        plain = await client.post("/v1/embeddings", json={"input": ["alpha", "red"]})
        assert content["usage"]["total_tokens"] == 2 * plain.json()["usage"]["total_tokens"]

        body = {"model": "both", "texts": ["alpha"], "input_type": "classification"}
        cohere = (
            await client.post("/v2/embed", json={**body, "embedding_types": ["float"]})
        ).json()
        np.testing.assert_allclose(cohere["embeddings"]["float"][0], joined[0], atol=1e-6)
        for name, field, path in (
            ("input", "embeddings", "/api/embed"),
            ("prompt", "embedding", "/api/embeddings"),
        ):
            ollama = (await client.post(path, json={"model": "both", name: "alpha"})).json()
            np.testing.assert_allclose(np.ravel(ollama[field]), joined[0], atol=1e-6)
        jina = {"model": "both", "input": ["alpha"], "normalized": True, "task": "text-matching"}
        voyage = {"model": "both", "input": ["alpha"], "truncation": True, "output_dtype": "int8"}
        for given in (jina, voyage):
            answer = await client.post("/v1/embeddings", json=given)
            assert len(answer.json()["data"][0]["embedding"]) == 64, answer.text
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["alpha"]}
        infer = await client.post("/v2/models/both/infer", json={"inputs": [tensor]})
        np.testing.assert_allclose(infer.json()["outputs"][0]["data"], joined[0], atol=1e-6)
        pairs = {"model": "both", "pairs": [["alpha", "red"]]}
        cosine = (await client.post("/v1/similarity", json=pairs)).json()["similarities"][0]
        expected = 0.75 * (one[0] @ one[1]) + 0.25 * (two[0] @ two[1])
        assert cosine == pytest.approx(expected, abs=1e-6)
        ranked = await client.post(
            "/v2/rerank", json={"model": "both", "query": "alpha", "documents": ["red"]}
        )
        query, document = [
            (await vectors_of(client, "both", text, input_type=role))[0]
            for text, role in (("alpha", "query"), ("red", "document"))
        ]
        score = ranked.json()["results"][0]["relevance_score"]
        assert score == pytest.approx(query @ document, abs=1e-6)
        packed = {"output_dtype": "ubinary", "encoding_format": "base64"}
        answer = await client.post(
            "/v1/embeddings", json={"input": "alpha", "model": "both", **packed}
        )
        bits = np.frombuffer(base64.b64decode(answer.json()["data"][0]["embedding"]), np.uint8)
        np.testing.assert_array_equal(bits, np.packbits(joined[0] > 0))


async def check_views(client: httpx.AsyncClient) -> None:
    """`index` is the input's, `view` the vector's; where an answer has one vector an input, it is 400."""
    await until(client, views="ready", second="ready")
    one = await vectors_of(client, "first", "alpha", "red")
    two = await vectors_of(client, "second", "alpha", "red", dimensions=8)
    answer = await client.post("/v1/embeddings", json={"input": ["alpha", "red"], "model": "views"})
    rows = answer.json()["data"]
    assert [(row["index"], row["view"]) for row in rows] == [
        *((0, "plain"), (0, "é"), (1, "plain"), (1, "é"))
    ]
    for row, vector in zip(rows, [one[0], two[0], one[1], two[1]], strict=True):
        np.testing.assert_allclose(row["embedding"], vector, atol=1e-6)
    refused: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"input": "a", "encoding_format": "bytes"},
        "/v2/embed": {
            "texts": ["a"],
            "input_type": "classification",
            "embedding_types": ["float"],
        },
        "/api/embed": {"input": "a"},
        "/v1/similarity": {"left": ["a"]},
        "/pooling": {"input": "a", "task": "embed"},
    }
    for path, body in refused.items():
        answer = await client.post(path, json={**body, "model": "views"})
        assert answer.status_code == 400, (path, answer.text)
        assert "several vectors of each input" in answer.text, path


async def check_route(client: httpx.AsyncClient) -> None:
    """In headers, as for any model; inputs of several spaces in one request are refused."""
    models = await until(client, any="ready", second="ready")
    body = {"model": "any", "input": "one two three four"}
    long = await client.post("/v1/embeddings", json=body)
    assert long.headers["x-embed-route"] == '0;model="second";when="tokens > 4";inputs=1'
    assert long.headers["x-embed-space"] == models["second"]["space"]
    short = await client.post("/v1/embeddings", json={**body, "input": "one"})
    assert short.headers["x-embed-route"].startswith('1;model="first";when="otherwise"')
    both = await client.post("/v1/embeddings", json={**body, "input": ["one", body["input"]]})
    assert both.status_code == 400
    assert both.json()["error"]["param"] == "input[1]"


async def check_batch(client: httpx.AsyncClient) -> None:
    """Alike lines run as one call; each has the vectors, views included, and the tokens of all parts."""
    from nestvec.api.batch.batch_lines import BatchLines

    await until(client, views="ready", second="ready", both="ready")
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    lines = BatchLines(transport.app.state)  # type: ignore[attr-defined] # the application's own
    bodies: list[dict[str, Any]]
    bodies = [{"input": text, "model": "views"} for text in ("alpha", "red")]
    bodies.append({"input": ["alpha", "red"], "model": "both"})
    results = [json.loads(line.body) for line in await lines.answer(bodies, owner="")]
    assert [(row["index"], row["view"]) for row in results[1]["data"]] == [
        (0, "plain"),
        (0, "é"),
    ]
    red = await vectors_of(client, "first", "red")
    np.testing.assert_allclose(results[1]["data"][0]["embedding"], red[0], atol=1e-6)
    joined = await vectors_of(client, "both", "alpha", "red")
    np.testing.assert_allclose([row["embedding"] for row in results[2]["data"]], joined, atol=1e-6)
    assert lines.dimensions("both") == 64


async def test_views_routes_and_batches(home: Path, tmp_path: Path) -> None:
    """Views have names, routes tell their reasons, and lines of a batch may ask for both."""
    async with recipes_served(home, tmp_path) as client:
        await until(client, views="ready", second="ready", both="ready", any="ready")
        await check_views(client)
        await check_route(client)
        await check_batch(client)


async def test_parts_are_unloaded_and_come_back_with_a_call(home: Path, tmp_path: Path) -> None:
    """A recipe stays described while a part is out of memory; parts that load on first use come with its first call."""
    folder = {"model": str(home / "second"), "load": "first_use"}
    keys: dict[str, Any] = {
        "admin_api": True,
        "admin_keys": [KEY],
        "models": {"second": folder},
    }
    async with recipes_served(home, tmp_path, **keys) as client:
        client.headers.update(AUTH)
        listed = await until(client, first="ready")
        assert (listed["second"]["state"], listed["both"]["state"]) == ("unloaded", "unloaded")
        assert listed["both"]["space"] is None
        assert len(listed["both"]["parts"]) == 2
        before = await vectors_of(client, "both", "alpha")
        assert (
            await client.post("/admin/models/unload", json={"model": "second"})
        ).status_code == 200
        listed = await until(client, second="unloaded")
        assert (listed["both"]["state"], listed["both"]["dimensions"]["native"]) == ("ready", 64)
        np.testing.assert_array_equal(
            await vectors_of(client, "both", "red", "alpha"),
            [*(await vectors_of(client, "both", "red")), *before],
        )
        assert (
            await client.post("/admin/models/unload", json={"model": "both"})
        ).status_code == 200
        assert (await vectors_of(client, "both", "alpha")).shape == (1, 64)


async def test_a_key_of_a_recipe_sees_no_part_and_pays_for_all(home: Path, tmp_path: Path) -> None:
    """Its list names the recipe; tokens of all parts count for its quota."""
    file = tmp_path / "keys.json"
    keys = KeyFile.read(file)
    key = keys.add("team", KeyLimits(models=("both",), monthly_tokens=6))[1]
    keys.write()
    async with recipes_served(home, tmp_path, keys_file=file) as client:
        client.headers["authorization"] = f"Bearer {key}"
        while (answer := await client.get("/v1/models")).status_code != 200:
            await asyncio.sleep(0.02)
        assert [row["id"] for row in answer.json()["data"]] == ["both"]
        assert (
            await client.post("/v1/embeddings", json={"input": "a", "model": "first"})
        ).status_code == 404
        # Three tokens, twice: those are all.
        assert (await vectors_of(client, "both", "alpha")).shape == (1, 64)
        refused = await client.post("/v1/embeddings", json={"input": "alpha", "model": "both"})
        assert refused.status_code == 429, refused.text


def test_widths_that_do_not_fit_refuse_the_start(home: Path) -> None:
    """They are known once the models are; the start names the parts, and nothing is served."""
    from nestvec.assembly.service import build_local_service
    from nestvec.config.settings import Settings
    from nestvec.engine.observer import NullObserver

    recipe = {"combine": "mean", "parts": [{}, {"dimensions": 8}]}
    settings = Settings(
        model=str(home / "first"),
        cache_dir=home / "cache",
        recipes=tables(odd=recipe),
    )
    with pytest.raises(ConfigError, match=r"recipes\.odd\.parts\.1: gives 8 dimensions"):
        build_local_service(settings, NullObserver())
