"""Ollama: embeddings, and the routes that its clients call beside them."""

from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.engine.models.served_model import AliasPreset

from tests.api.applications import Api, MakeApi, unit_vector
from tests.support.served import ServedOptions

LONG = "alpha beta gamma red " * 10


async def embed(api: Api, **body: Any) -> httpx.Response:
    """POST a body to /api/embed."""
    return await api.client.post("/api/embed", json=body)


async def test_embed(api: Api) -> None:
    """An answer has the vectors, whole nanoseconds, tokens, and the model's name as it was asked for."""
    body = (await embed(api, model="fake-model:latest", input=["alpha", "beta gamma"])).json()
    assert list(body) == [
        *("model", "embeddings", "total_duration", "load_duration", "prompt_eval_count")
    ]
    assert (body["model"], body["prompt_eval_count"]) == ("fake-model:latest", 7)
    assert isinstance(body["total_duration"], int)
    expected = [unit_vector(api, "alpha"), unit_vector(api, "beta gamma")]
    np.testing.assert_allclose(body["embeddings"], expected, atol=1e-6)
    lone = (await embed(api, model="fake-model", input="alpha")).json()
    np.testing.assert_allclose(lone["embeddings"], expected[:1], atol=1e-6)


@pytest.mark.parametrize("nothing", [{}, {"input": ""}, {"input": []}, {"input": None}])
async def test_asking_for_nothing_loads_the_model(api: Api, nothing: dict[str, Any]) -> None:
    """A body without inputs is 200 without vectors."""
    answer = await embed(api, model="fake-model", **nothing)
    assert answer.json() == {"model": "fake-model", "embeddings": []}


@pytest.mark.parametrize(
    ("options", "text", "size"),
    [
        ({"dimensions": 4}, "alpha", 4),
        ({"dimensions": 0}, "alpha", 8),
        ({"dimensions": 99}, "alpha", 8),
        ({"input": LONG}, " ".join(LONG.split()[:14]), 8),
        ({"input": LONG, "truncate": None}, " ".join(LONG.split()[:14]), 8),
        ({"input": LONG, "options": {"num_ctx": 4}}, "alpha beta", 8),
        ({"options": {"num_ctx": None, "seed": None}}, "alpha", 8),
        ({"options": None, "keep_alive": "5m"}, "alpha", 8),
        ({"keep_alive": -1}, "alpha", 8),
    ],
)
async def test_options(api: Api, options: dict[str, Any], text: str, size: int) -> None:
    """Dimensions that are too many are ignored, and `num_ctx` lowers the limit of tokens."""
    answer = await embed(api, **{"input": "alpha", **options})
    assert answer.status_code == 200, answer.text
    expected = unit_vector(api, text, size)
    np.testing.assert_allclose(answer.json()["embeddings"][0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input": [7]}, "input[0]"),
        ({"input": [[5]]}, "input[0]"),
        ({"input": 7}, "input"),
        ({"input": LONG, "truncate": False}, "the input length exceeds the context length"),
        ({"input": "a", "dimensions": -1}, "dimensions"),
        ({"input": "a", "options": 7}, "options"),
        ({"input": "a", "options": {"num_ctx": "big"}}, "num_ctx"),
        ({"input": "a", "options": {"num_ctx": 1}}, "options.num_ctx"),
        ({"input": "a", "model": 7}, "model"),
    ],
)
async def test_it_refuses(api: Api, options: dict[str, Any], words: str) -> None:
    """An error is one string that names the field."""
    answer = await embed(api, **options)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


async def test_the_old_route(api: Api) -> None:
    """`/api/embeddings` embeds one text, and leaves the vector's length as it is."""
    answer = await api.client.post(
        "/api/embeddings", json={"model": "fake-model", "prompt": "alpha"}
    )
    vector = answer.json()["embedding"]
    norm = np.linalg.norm(vector)
    assert abs(norm - 1) > 1e-3
    np.testing.assert_allclose(vector / norm, unit_vector(api, "alpha"), atol=1e-6)
    empty = await api.client.post("/api/embeddings", json={"prompt": ""})
    assert empty.json() == {"embedding": []}


async def test_what_is_served(make_api: MakeApi) -> None:
    """Models are listed under `:latest`, and so are names that stand for dimensions."""
    api = make_api(ServedOptions(presets={"small": AliasPreset(dimensions=4)}))
    for path in ("/api/tags", "/api/ps"):
        models = (await api.client.get(path)).json()["models"]
        assert [m["name"] for m in models] == ["org/fake-model:latest", "small:latest"]
        assert set(models[0]["details"]) == {
            *("parent_model", "format", "family", "families"),
            *("parameter_size", "quantization_level"),
        }
    small = (await embed(api, model="small", input="alpha")).json()
    np.testing.assert_allclose(small["embeddings"], [unit_vector(api, "alpha", 4)], atol=1e-6)
    for path in ("/api/tags", "/api/version", "/"):
        assert (await api.client.head(path)).status_code == 200
    assert (await api.client.get("/api/version")).json()["version"].count(".") == 2


@pytest.mark.parametrize("name", ["model", "name"])
async def test_show_and_pull(api: Api, name: str) -> None:
    """A model is shown and pulled by either field for its name."""
    shown = (await api.client.post("/api/show", json={name: "fake-model:latest"})).json()
    assert shown["capabilities"] == ["embedding"]
    info = shown["model_info"]
    assert (info["general.architecture"], info["bert.embedding_length"]) == ("bert", 8)
    assert info["bert.context_length"] == 16
    pulled = await api.client.post("/api/pull", json={name: "fake-model"})
    assert pulled.json() == {"status": "success"}
    for path in ("/api/show", "/api/pull"):
        answer = await api.client.post(path, json={name: "other"})
        assert (answer.status_code, answer.json()) == (404, {"error": "model 'other' not found"})


async def test_keys_guard_the_lists(make_api: MakeApi) -> None:
    """Lists of models are behind the key; the version is not."""
    api = make_api(api_keys=["k"])
    for path in ("/api/tags", "/api/ps"):
        assert (await api.client.get(path)).status_code == 401
        good = await api.client.get(path, headers={"authorization": "Bearer k"})
        assert good.status_code == 200
    assert (await api.client.get("/api/version")).status_code == 200


@pytest.mark.parametrize(
    ("path", "wrong", "right"),
    [("/api/embed", "prompt", "input"), ("/api/embeddings", "input", "prompt")],
)
async def test_the_field_of_the_other_route_is_an_error(
    api: Api, path: str, wrong: str, right: str
) -> None:
    """A text in the field of the other route is told, where Ollama answers without a vector; both at once are fine."""
    for text in ("very private", ["very private"]):
        answer = await api.client.post(path, json={"model": "fake-model", wrong: text})
        assert answer.status_code == 400
        assert f"'{right}'" in answer.json()["error"]
        assert f"'{wrong}'" in answer.json()["error"]
        assert "private" not in answer.text
    both = {"model": "fake-model", wrong: "ignored", right: "alpha"}
    assert (await api.client.post(path, json=both)).status_code == 200
    empty = {"model": "fake-model", wrong: ""}
    assert (await api.client.post(path, json=empty)).status_code == 200
