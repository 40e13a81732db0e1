"""`layers` and `map` over HTTP, and what /v1/models tells of them."""

import base64
import dataclasses
from typing import Any

import numpy as np
import orjson
import pytest
from nestvec.api.batch.batch_lines import BatchLines
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.front.validation import check_profiles
from nestvec.engine.models.served_model import AliasPreset, ServedModel
from nestvec.engine.vectors.maps import exit_space
from nestvec.errors import ConfigError

from tests.api.applications import Api, MakeApi
from tests.engine.front.test_vector_plan import random_map
from tests.support.served import SPEC, ServedOptions

EXIT, SHORT = random_map("exit-2", layers=2), random_map("short", width=4)
OPTIONS = ServedOptions(spec=dataclasses.replace(SPEC, trained_layers=(1,)), maps=(EXIT, SHORT))


async def test_answers_say_which_layers_and_map_made_them(make_api: MakeApi) -> None:
    """Headers name the layers and the map, and the space of the vectors that came out."""
    api = make_api(OPTIONS)
    cases: list[tuple[dict[str, Any], str | None, str | None, str]] = [
        ({}, None, None, SPEC.space),
        ({"layers": 3}, None, None, SPEC.space),
        ({"layers": 1}, "1", None, exit_space(SPEC.space, 1)),
        ({"layers": 2.0}, "2", "exit-2", EXIT.space),
        ({"map": "short", "dimensions": 3}, None, "short", SHORT.space),
        ({"map": "short", "layers": None}, None, "short", SHORT.space),
    ]
    for body, layers, name, space in cases:
        answer = await api.embed({"input": "alpha", **body})
        assert answer.status_code == 200, answer.text
        headers = answer.headers
        told = headers.get("x-embed-layers"), headers.get("x-embed-map"), headers["x-embed-space"]
        assert told == (layers, name, space)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"layers": 4}, "layers"),
        ({"layers": "2"}, "layers"),
        ({"layers": True}, "layers"),
        ({"map": "nope"}, "map"),
        ({"map": 3}, "map"),
        ({"map": "short", "dimensions": 5}, "dimensions"),
    ],
    ids=str,
)
async def test_wrong_layers_and_maps_are_refused(
    make_api: MakeApi, body: dict[str, Any], param: str
) -> None:
    """Layers and maps that the model does not have, or of the wrong type, are refused by the field's name."""
    answer = await make_api(OPTIONS).embed({"input": "alpha", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_other_dialects_refuse_layers_and_maps(make_api: MakeApi) -> None:
    """A dialect without these fields refuses them, as ignoring them would give other vectors."""
    api = make_api(OPTIONS)
    bodies = {
        "/embed": {"inputs": "a", "layers": 1},
        "/v2/embed": {"texts": ["a"], "embedding_types": ["float"], "map": "short"},
        "/api/embed": {"input": "a", "layers": 1},
    }
    for path, body in bodies.items():
        answer = await api.client.post(path, json=body)
        assert answer.status_code in (400, 413, 422), path
        assert "another dialect" in answer.text


async def test_models_tell_their_exits_maps_and_quality(make_api: MakeApi) -> None:
    """A model's description tells exits, maps and quality figures; the list leaves the figures out."""
    api = make_api(OPTIONS)
    slot = api.served.service.models.all()[0]
    figures = {"tasks": [{"task": "sts", "metric": "spearman", "n": 3, "figures": []}]}
    assert isinstance(slot.model, ServedModel)
    slot.model = dataclasses.replace(slot.model, quality=figures)
    model = (await api.client.get(f"/v1/models/{SPEC.name}")).json()
    assert model["layers"] == {"native": 3, "trained": [1], "fitted": {"2": "exit-2"}}
    assert [(row["name"], row["dimensions"], row["layers"]) for row in model["maps"]] == [
        ("exit-2", 8, 2),
        ("short", 4, None),
    ]
    assert model["quality"] == figures
    listed = (await api.client.get("/v1/models")).json()["data"]
    assert all("quality" not in each for each in listed)


async def test_8_bit_vectors_of_maps_have_ranges_of_their_own(make_api: MakeApi) -> None:
    """Each answer names the ranges of its int8 vectors by an id."""
    api = make_api(OPTIONS)
    ids = set()
    for body in ({}, {"map": "short"}):
        answer = await api.embed({"input": "a", "output_dtype": "int8", **body})
        ids.add(answer.headers["x-embed-quantization"])
        assert all(-128 <= v <= 127 for v in answer.json()["data"][0]["embedding"])
    assert ids  # one id, as the ranges come from a formula here


async def test_no_store_keeps_a_text_out_of_the_cache(make_api: MakeApi) -> None:
    """`cache-control: no-store` keeps a text out of the cache; metrics count hits and the tokens that were saved."""
    cache = VectorCache(2**20)
    api = make_api(ServedOptions(cache=cache))
    api.app.state.metrics.cache.watch(cache)
    for headers in ({"cache-control": "no-store"}, {}, {}):
        assert (await api.embed({"input": "alpha"}, **headers)).status_code == 200
    text = (await api.client.get("/metrics")).text
    expected = {
        'nestvec_vector_cache_hits_total{model="org/fake-model",tier="memory"}': 1.0,
        'nestvec_vector_cache_misses_total{model="org/fake-model"}': 1.0,
        'nestvec_vector_cache_saved_tokens_total{model="org/fake-model"}': 3.0,
        "nestvec_vector_cache_entries": 1.0,
    }
    for name, value in expected.items():
        assert f"{name} {value}" in text
    assert len(api.served.backend.batches) == 2


async def test_batch_lines_take_layers_and_maps(make_api: MakeApi) -> None:
    """A line of a batch is answered as the same body would be alone, also where it chunks its documents."""
    api = make_api(OPTIONS)
    lines: list[dict[str, Any]] = [
        {"input": "alpha", "layers": 2, "encoding_format": "base64"},
        {"input": "beta", "layers": 2, "encoding_format": "base64"},
        {"input": "alpha beta gamma", "late_chunking": True},
        {"input": "delta one two", "late_chunking": True},
        {"input": "one. two.", "late_chunking": {"splitter": "sentences"}},
        {"input": "x " * 40, "truncate": True},
        {"input": "alpha", "truncate": True},
    ]
    results = await BatchLines(api.app.state).answer(lines, owner="")
    answers = [orjson.loads(result.body) for result in results]
    assert [result.status for result in results] == [200] * len(lines)
    for line, answer in zip(lines, answers, strict=True):
        alone = (await api.embed(line)).json()
        assert answer["usage"] == alone["usage"]
        for row, row_alone in zip(answer["data"], alone["data"], strict=True):
            assert {**row, "embedding": 0} == {**row_alone, "embedding": 0}
            vectors = [row["embedding"], row_alone["embedding"]]
            if isinstance(vectors[0], str):
                vectors = [np.frombuffer(base64.b64decode(v), "<f4") for v in vectors]
            np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert answers[5]["usage"]["long_inputs"][0]["index"] == 0
    assert "long_inputs" not in answers[6]["usage"]


PROFILES = {
    "mini": AliasPreset("query", 3, layers=2),
    "short-bits": AliasPreset(output_dtype=OutputDtype.UBINARY),
    "short-codes": AliasPreset(map_id="short", output_dtype=OutputDtype.INT8),
    "halves": AliasPreset(layers=1, output_dtype=OutputDtype.FLOAT16),
}


def _profiled(make_api: MakeApi) -> Api:
    return make_api(dataclasses.replace(OPTIONS, presets=PROFILES))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mini", {"prompt_name": "query", "dimensions": 3, "layers": 2}),
        ("short-bits", {"output_dtype": "ubinary"}),
        ("short-codes", {"map": "short", "output_dtype": "int8"}),
        ("halves", {"layers": 1, "output_dtype": "float16"}),
    ],
)
async def test_a_name_stands_for_a_profile(
    make_api: MakeApi, name: str, said: dict[str, Any]
) -> None:
    """Layers, map, dimensions and dtype of an alias are those of a request that says them itself."""
    api = _profiled(make_api)
    by_name = await api.embed({"input": ["alpha", "beta"], "model": name})
    by_fields = await api.embed({"input": ["alpha", "beta"], **said})
    assert by_name.json()["data"] == by_fields.json()["data"]
    for header in ("x-embed-space", "x-embed-layers", "x-embed-map", "x-embed-quantization"):
        assert by_name.headers.get(header) == by_fields.headers.get(header)
    row = (await api.client.get(f"/v1/models/{name}")).json()
    assert row["pinned"] == {"prompt_name": None, "dimensions": None, **said}
    assert row["space"] == by_name.headers["x-embed-space"]


async def test_what_a_request_says_wins_over_its_models_profile(make_api: MakeApi) -> None:
    """A request's own layers or map stand for the whole way, its own dtype for the alias's."""
    api = _profiled(make_api)
    for name, said, plain in (
        ("mini", {"layers": 1}, {"layers": 1, "prompt_name": "query", "dimensions": 3}),
        ("mini", {"map": "short"}, {"map": "short", "prompt_name": "query", "dimensions": 3}),
        ("short-codes", {"layers": 1}, {"layers": 1, "output_dtype": "int8"}),
        ("short-bits", {"output_dtype": "float"}, {}),
    ):
        by_name = await api.embed({"input": "alpha", "model": name, **said})
        by_fields = await api.embed({"input": "alpha", **plain})
        assert by_name.json()["data"] == by_fields.json()["data"]


async def test_a_profiles_dtype_goes_through_every_dialect_with_a_word_for_it(
    make_api: MakeApi,
) -> None:
    """Names of types follow it; base64 that nobody named a dtype for holds float32, as clients take it to."""
    api = _profiled(make_api)
    plain = (await api.embed({"input": "alpha", "output_dtype": "ubinary"})).json()
    bits = plain["data"][0]["embedding"]

    async def answer(path: str, **body: Any) -> Any:
        response = await api.client.post(path, json={"model": "short-bits", **body})
        assert response.status_code == 200, response.text
        return response.json()

    coded = (await answer("/v1/embeddings", input="alpha", encoding_format="base64"))["data"][0]
    held = np.frombuffer(base64.b64decode(coded["embedding"]), "<f4")
    assert held.tolist() == bits
    voyage = await answer("/v1/embeddings", input=["alpha"], truncation=True)
    assert voyage["data"][0]["embedding"] == bits
    voyage = await answer(
        "/v1/embeddings", input=["alpha"], truncation=True, encoding_format="base64"
    )
    held = np.frombuffer(base64.b64decode(voyage["data"][0]["embedding"]), "<f4")
    assert held.tolist() == bits
    jina = await answer("/v1/embeddings", input=[{"text": "alpha"}])
    assert jina["data"][0]["embedding"] == bits
    cohere = {"texts": ["alpha"], "input_type": "classification"}
    assert (await answer("/v2/embed", **cohere))["embeddings"] == {"ubinary": [bits]}
    assert (await answer("/v1/embed", **cohere))["embeddings"] == [bits]
    pooled = await answer("/pooling", input="alpha", encoding_format="base64")
    assert np.frombuffer(base64.b64decode(pooled["data"][0]["data"]), "<f4").tolist() == bits
    compared = await answer("/v1/similarity", pairs=[["alpha", "beta"]])
    assert compared["output_dtype"] == "ubinary"
    # What has no word for dtypes gives floats.
    floats = (await api.embed({"input": "alpha"})).json()["data"][0]["embedding"]
    assert (await answer("/embed", inputs="alpha"))[0] == floats
    lines = BatchLines(api.app.state)
    result = (await lines.answer([{"input": "alpha", "model": "short-bits"}], owner=""))[0]
    assert orjson.loads(result.body)["data"][0]["embedding"] == bits


def test_profiles_of_what_a_model_lacks_are_refused(make_api: MakeApi) -> None:
    """The start is refused, naming each alias and the field at fault."""
    api = make_api(OPTIONS)
    model = api.served.service.models.resolve("")
    bad = {
        "a": AliasPreset(layers=4),
        "b": AliasPreset(map_id="none such"),
        "c": AliasPreset(dimensions=5, map_id="short"),
        "d": AliasPreset(dimensions=3, output_dtype=OutputDtype.BINARY),
        "e": AliasPreset(layers=1, map_id="short"),
    }
    check_profiles(PROFILES, model, allows_untrained=False)
    with pytest.raises(ConfigError) as caught:
        check_profiles(bad, model, allows_untrained=False)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "aliases.a.layers",
        "aliases.b.map",
        "aliases.c.dimensions",
        "aliases.d.dimensions",
        "aliases.e.layers",
    ]
