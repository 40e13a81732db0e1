"""Fields that a dialect does not know: which are refused, which are ignored, and how the caller is told."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.api.dialects import (
    cohere,
    gemini,
    jina,
    ollama,
    open_inference,
    openai_body,
    perplexity,
    tei,
    vllm,
    voyage,
)
from nestvec.api.requests.foreign_fields import header_value, slip_of
from nestvec.api.requests.vector_fields import (
    OWN_OTHER_FIELDS,
    OWN_VECTOR_FIELDS,
    VECTOR_FIELDS,
    VENDORS_OTHER_FIELDS,
    VENDORS_VECTOR_FIELDS,
    VENDORS_WORDS,
)
from nestvec.api.routes import chunk, classify, rerank, rescore, similarity

from tests.api.applications import Api, MakeApi

MODULES = (
    *(cohere, gemini, jina, ollama, open_inference, openai_body, perplexity, tei, vllm, voyage),
    *(chunk, classify, rerank, rescore, similarity),
)
HEADER = "x-embed-ignored-fields"


def tables() -> Iterator[frozenset[str]]:
    """Give every table of fields of every dialect and route."""
    for module in MODULES:
        for name, table in vars(module).items():
            if name.endswith("FIELDS") and isinstance(table, frozenset):
                yield table


def test_the_tables_are_closed_over_all_dialects() -> None:
    """Each field of each dialect is known to change vectors or not, and in neither table stands any other."""
    union = frozenset().union(*tables())
    assert len(list(tables())) >= 15
    assert union == OWN_VECTOR_FIELDS.keys() | OWN_OTHER_FIELDS
    assert not OWN_VECTOR_FIELDS.keys() & OWN_OTHER_FIELDS
    assert not (VENDORS_VECTOR_FIELDS.keys() | VENDORS_OTHER_FIELDS) & union
    assert not VENDORS_VECTOR_FIELDS.keys() & VENDORS_OTHER_FIELDS


def test_no_field_of_a_dialect_is_a_slip_in_another() -> None:
    """A field of any dialect, and any vendor's own word, is never taken for a slip of a like one."""
    slips = [(name, slip_of(name, known)) for known in tables() for name in VENDORS_WORDS]
    assert [slip for slip in slips if slip[1] is not None] == []


# Of each, a value that would give other vectors.
ASKED: dict[str, Any] = {
    **dict.fromkeys(VECTOR_FIELDS, "other"),
    "truncation_direction": "left",
    "max_tokens": 5,
    "modality": "image",
    "matryoshka_dim": 4,
    "normalize_embeddings": False,
    "output_dimensionality": 4,
    "images": ["data:,x"],
}


@pytest.mark.parametrize("name", sorted(VECTOR_FIELDS.keys() - openai_body.FIELDS))
async def test_what_changes_vectors_is_refused(api: Api, name: str) -> None:
    """Every field of any dialect or vendor that changes vectors is refused by name; as null it is absent."""
    if name in ("truncation", "output_dimension", "embedding_type", "return_multivector"):
        body = {"left": "alpha"}  # on /v1/embeddings these make it another dialect's body
        path = "/v1/similarity"
    elif name == "normalized":
        body, path = {"left": "alpha"}, "/v1/similarity"
    else:
        body, path = {"input": "alpha"}, "/v1/embeddings"
    answer = await api.client.post(path, json={**body, name: ASKED[name]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "foreign_field", name)
    answer = await api.client.post(path, json={**body, name: None})
    assert answer.status_code == 200
    assert HEADER not in answer.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("truncation_direction", "right"),
        ("modality", "text"),
        ("modality", ["text", "text"]),
        ("normalize_embeddings", True),
        ("images", []),
        ("embedding_types", ["float"]),
    ],
)
async def test_values_that_change_nothing_pass(api: Api, name: str, value: Any) -> None:
    """What asks for the vectors that are given anyway is no reason to refuse."""
    assert (await api.embed({"input": "alpha", name: value})).status_code == 200


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("dimension", "dimensions"),
        ("Dimensions", "dimensions"),
        ("dimesions", "dimensions"),
        ("dimenisons", "dimensions"),
        ("inputType", "input_type"),
        ("input-type", "input_type"),
        ("inputtype", "input_type"),
        ("INPUT_TYPE", "input_type"),
        ("modle", "model"),
        ("models", "model"),
        ("normalise", "normalize"),
        ("truncated", "truncate"),
        ("encodingFormat", "encoding_format"),
        ("promptname", "prompt_name"),
        ("layer", "layers"),
        ("maps", "map"),
    ],
)
async def test_a_near_miss_is_refused_with_what_was_meant(api: Api, slip: str, meant: str) -> None:
    """An edit, plural, case or underscore away from a field of the dialect: the message says which was meant."""
    answer = await api.embed({"input": "alpha", slip: "x"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unknown_field", slip)
    assert f"did you mean '{meant}'?" in error["message"]
    assert (await api.embed({"input": "alpha", slip: None})).status_code == 200


@pytest.mark.parametrize("slip", ["outputDimensionaliti", "max_token", "truncationDirection"])
async def test_a_near_miss_of_another_dialects_field(api: Api, slip: str) -> None:
    """What looks like another dialect's field is refused as that field is."""
    error = (await api.embed({"input": "alpha", slip: 3})).json()["error"]
    assert (error["code"], error["param"]) == ("foreign_field", slip)
    assert "looks like" in error["message"]


# What clients send beside the fields of an API (docs/wire-behaviour.md), and words of other vendors.
HARMLESS: dict[str, Any] = {
    "parameters": {},
    "options": {"wait_for_model": True},
    "return_documents": True,
    "keep_alive": "5m",
    "metadata": {},
    "stream": False,
    "batch_size": 32,
    "timeout": 60,
    "top_p": 1,
    "content": "x",
    "title": "x",
    "text": "x",
    "future_field": {"x": 1},
}


async def test_other_unknown_fields_are_named_and_counted(api: Api) -> None:
    """Fields that change nothing are ignored; a header names them, and a counter without labels counts them."""
    answer = await api.embed({"input": "alpha", "user": "me", **HARMLESS})
    assert answer.status_code == 200
    assert answer.headers[HEADER].split(",") == sorted(HARMLESS)
    metrics = (await api.client.get("/metrics")).text
    assert f"nestvec_ignored_fields_total {float(len(HARMLESS))}" in metrics
    assert HEADER not in (await api.embed({"input": "alpha", "user": "me"})).headers


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": "alpha", "model": "m"}),
        ("/v2/embed", {"texts": ["alpha"], "model": ""}),
        ("/api/embed", {"input": "alpha"}),
        ("/pooling", {"input": "alpha"}),
        ("/v1/embeddings", {"input": ["alpha"], "embedding_type": "float"}),
        ("/v1/embeddings", {"input": ["alpha"], "truncation": True}),
        ("/rerank", {"query": "alpha", "documents": ["beta"]}),
        ("/v1/similarity", {"left": ["alpha", "beta"]}),
    ],
)
async def test_every_dialect_names_what_it_ignores(
    api: Api, path: str, body: dict[str, Any]
) -> None:
    """The header is in the answers of all dialects."""
    answer = await api.client.post(path, json={**body, "unheard_of": 1})
    assert answer.status_code == 200, answer.text
    assert "unheard_of" in answer.headers[HEADER]


async def test_parameters_of_the_open_inference_protocol(api: Api) -> None:
    """The protocol's options lie in `parameters`, and the same holds for them; a client's own are no slips."""
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["alpha"]}
    path = "/v2/models/org/fake-model/infer"
    for parameters, wrong in (
        ({"max_tokens": 3}, "max_tokens"),
        ({"dimension": 3}, "dimension"),
        ({"timeout": 10**6, "sequence_id": 1, "priority": 1, "binary_data_output": False}, None),
    ):
        body = {"inputs": [tensor], "parameters": parameters}
        answer = await api.client.post(path, json=body)
        assert answer.status_code == (200 if wrong is None else 400)
        if wrong is None:
            assert answer.headers[HEADER] == "parameters.priority,parameters.sequence_id"
        else:
            assert wrong in answer.json()["error"]


TENSORS = [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["alpha"]}]
INFER = "/v2/models/org/fake-model/infer"
SIMILAR = {"source_sentence": "alpha", "sentences": ["beta"]}
MISPLACED = (
    ("/embed", {"inputs": "alpha", "parameters": {"normalize": False}}, "parameters.normalize"),
    ("/embed", {"inputs": "alpha", "options": {"dimensions": 2}}, "options.dimensions"),
    ("/v1/embeddings", {"input": "a", "extra_body": {"dimensions": 2}}, "extra_body.dimensions"),
    ("/v1/embeddings", {"input": "a", "parameters": {"truncate": "x"}}, "parameters.truncate"),
    ("/v2/embed", {"texts": ["a"], "options": {"output_dimension": 2}}, "output_dimension"),
    ("/api/embed", {"input": "a", "options": {"dimensions": 2}}, "options.dimensions"),
    ("/api/embed", {"input": "a", "options": {"truncate": False}}, "options.truncate"),
    ("/api/embeddings", {"prompt": "a", "options": {"rope_frequency_base": 1e4}}, "rope_freq"),
    ("/", {"inputs": SIMILAR, "parameters": {"dimensions": 2}}, "parameters.dimensions"),
    ("/", {"inputs": {**SIMILAR, "prompt": "x"}}, "inputs.prompt"),
    (INFER, {"inputs": TENSORS, "parameters": {"max_tokens": 3}}, "parameters.max_tokens"),
)
MISSED = (
    ("/api/embed", {"input": "a", "options": {"num_ctxs": 4}}, "options.num_ctx"),
    ("/api/embed", {"input": "a", "options": {"numCtx": 4}}, "options.num_ctx"),
    ("/api/embed", {"input": "a", "num_ctx": 4}, "options.num_ctx"),
    ("/", {"inputs": SIMILAR, "parameters": {"promptName": "q"}}, "parameters.prompt_name"),
    (INFER, {"inputs": TENSORS, "parameters": {"dimension": 3}}, "parameters.dimensions"),
    (INFER, {"inputs": TENSORS, "dimensions": 3}, "parameters.dimensions"),
)


@pytest.mark.parametrize(("path", "body", "named"), MISPLACED)
async def test_options_that_are_not_read_inside_an_object(
    api: Api, path: str, body: dict[str, Any], named: str
) -> None:
    """A field inside `options`, `parameters` and the like changes vectors as one beside them would."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code in (400, 413, 422), answer.text
    assert named in answer.text
    assert "other vectors" in answer.text


@pytest.mark.parametrize(("path", "body", "meant"), MISSED)
async def test_near_misses_inside_an_object(
    api: Api, path: str, body: dict[str, Any], meant: str
) -> None:
    """The message says where the field belongs."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code in (400, 422), answer.text
    assert f"did you mean '{meant}'?" in answer.text


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/embed", {"inputs": "alpha", "parameters": {"normalize": True, "x": 1}}, "parameters.x"),
        ("/v1/embeddings", {"input": "a", "metadata": {"task": "x", "images": [1]}}, "metadata"),
        ("/v1/embeddings", {"input": "a", "options": {"wait_for_model": True}}, "options"),
        ("/", {"inputs": SIMILAR, "parameters": {"truncate": True, "x": 1}}, "parameters.x"),
        (
            "/api/embed",
            {"input": "a", "options": {"temperature": 0, "num_gpu": 1, "dimensions": None}},
            None,
        ),
        ("/api/embed", {"input": "a", "options": {"num_threads": 4}}, "options.num_threads"),
    ],
)
async def test_what_changes_nothing_inside_an_object_is_ignored(
    api: Api, path: str, body: dict[str, Any], named: str | None
) -> None:
    """Ollama's own options are ignored as Ollama does; of unknown ones the header names the place."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers.get(HEADER) == named


async def test_a_strict_server_still_says_what_was_meant(make_api: MakeApi) -> None:
    """With `reject_unknown_fields` every unknown field is refused, a slip with what was meant."""
    api = make_api(reject_unknown_fields=True)
    assert "did you mean 'model'?" in (await api.embed({"input": "a", "modle": "x"})).text
    assert (await api.embed({"input": "a", "stream": False})).status_code == 400
    body = {"input": "a", "options": {"temperature": 0}}
    assert (await api.client.post("/api/embed", json=body)).status_code == 200
    body["options"] = {"unheard_of": 0}
    answer = await api.client.post("/api/embed", json=body)
    assert "options.unheard_of" in answer.text


async def test_thousands_of_fields_are_ignored_in_no_time(api: Api) -> None:
    """Only the first of very many unknown fields are compared with ours; the header names sixteen."""
    many = {f"unheard_of_{n:05}": n for n in range(20_000)}
    answer = await api.embed({"input": "alpha", **many})
    assert answer.status_code == 200
    assert answer.headers[HEADER].count(",") == 15


@given(st.lists(st.text(), min_size=1))
def test_a_header_holds_any_names(names: list[str]) -> None:
    """Whatever callers call fields, the header's value is short, and of letters, digits and a few signs."""
    value = header_value(names)
    assert len(value) <= 16 * 41
    assert all(c.isascii() and (c.isalnum() or c in "_.-?,") for c in value)
