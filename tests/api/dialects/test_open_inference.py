"""The Open Inference Protocol: JSON and binary tensors, names with slashes, and framing that lies."""

import gzip
import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.api.dialects.tensors import read_tensors
from nestvec.engine.text.token_report import describe_tokens
from nestvec.errors import InputError

from tests.api.applications import Api, MakeApi, unit_vector

PATH = "/v2/models/org/fake-model/infer"
LENGTH = "inference-header-content-length"


def packed(texts: list[str]) -> bytes:
    """Return the raw bytes of a BYTES tensor."""
    raw = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(item)) + item for item in raw)


def tensor(texts: list[str], name: str = "text", **extra: Any) -> dict[str, Any]:
    """Return a tensor of texts in JSON."""
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": texts, **extra}


def binary(texts: list[str], name: str = "text") -> dict[str, Any]:
    """Return a tensor of texts whose bytes follow the JSON."""
    size = len(packed(texts))
    described = {"name": name, "shape": [len(texts)], "datatype": "BYTES"}
    return {**described, "parameters": {"binary_data_size": size}}


async def infer(
    api: Api, head: dict[str, Any], tail: bytes = b"", **headers: str
) -> httpx.Response:
    """POST a request; with raw bytes the header tells the length of the JSON."""
    content = json.dumps(head).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if tail:
        named[LENGTH] = str(len(content))
    return await api.client.post(PATH, content=content + tail, headers=named)


def vectors(answer: httpx.Response) -> Any:
    """Return the output's vectors `[B, D]`, from JSON or from raw bytes."""
    assert answer.status_code == 200, answer.text
    if LENGTH not in answer.headers:
        (output,) = answer.json()["outputs"]
        return np.array(output["data"]).reshape(output["shape"])
    length = int(answer.headers[LENGTH])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"]["binary_data_size"] == len(answer.content) - length
    return np.frombuffer(answer.content[length:], "<f4").reshape(output["shape"])


async def test_json(api: Api) -> None:
    """A JSON request gets the model, the output and its own id back."""
    answer = await infer(api, {"inputs": [tensor(["alpha", "beta"])], "id": "r1"})
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("org/fake-model", "1", "r1")
    assert body["outputs"][0]["datatype"] == "FP32"
    expected = [unit_vector(api, "alpha"), unit_vector(api, "beta")]
    np.testing.assert_allclose(vectors(answer), expected, atol=1e-6)
    assert "id" not in (await infer(api, {"inputs": [tensor(["alpha"])]})).json()


async def test_binary_as_triton_sends_it(api: Api) -> None:
    """Binary requests get binary or JSON answers, and with gzip the length of the JSON counts after decompression."""
    head = {"inputs": [binary(["alpha", "日本"])], "parameters": {"binary_data_output": True}}
    tail = packed(["alpha", "日本"])
    expected = [unit_vector(api, "alpha"), unit_vector(api, "日本")]
    answer = await infer(api, head, tail)
    assert answer.headers["content-type"] == "application/octet-stream"
    np.testing.assert_allclose(vectors(answer), expected, atol=1e-6)
    plain = await infer(api, {"inputs": head["inputs"]}, tail)
    np.testing.assert_allclose(vectors(plain), expected, atol=1e-6)
    content = json.dumps(head).encode()
    zipped = await api.client.post(
        PATH,
        content=gzip.compress(content + tail),
        headers={LENGTH: str(len(content)), "content-encoding": "gzip"},
    )
    np.testing.assert_allclose(vectors(zipped), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "binary_data_output", "is_binary"),
    [
        (None, True, True),
        (None, False, False),
        ([{"name": "embeddings", "parameters": {"binary_data": False}}], True, False),
        ([{"name": "embeddings", "parameters": {"binary_data": True}}], None, True),
        ([{"name": "embeddings"}], True, True),
    ],
)
async def test_which_form_comes_back(
    api: Api, *, outputs: Any, binary_data_output: bool | None, is_binary: bool
) -> None:
    """What an output says of its form wins over what the request says."""
    head = {"inputs": [tensor(["a"])], "parameters": {"binary_data_output": binary_data_output}}
    answer = await infer(api, {**head, "outputs": outputs})
    assert (LENGTH in answer.headers) is is_binary


@pytest.mark.parametrize(
    "inputs",
    [
        [tensor(["alpha"], name="TEXT")],
        [tensor(["alpha"], name="anything")],
        [{**tensor([]), "shape": [1, 1], "data": [["alpha"]]}],
        [tensor(["alpha"]), tensor(["search_query"], name="input_type")],
        [tensor(["alpha"]), {"name": "dimensions", "shape": [1], "datatype": "INT32", "data": [4]}],
    ],
)
async def test_tensors_by_other_names_and_shapes(api: Api, inputs: list[dict[str, Any]]) -> None:
    """Tensors of texts are found by several names and shapes, and options may be tensors too."""
    names = {item["name"] for item in inputs}
    text = "query : alpha" if "input_type" in names else "alpha"
    size = 4 if "dimensions" in names else None
    embeddings = vectors(await infer(api, {"inputs": inputs}))
    np.testing.assert_allclose(embeddings, [unit_vector(api, text, size)], atol=1e-6)


async def test_token_ids(api: Api) -> None:
    """Token ids are embedded without padding, from JSON and from raw bytes."""
    ids = [
        t.id for t in describe_tokens(api.served.tokenizer, "beta gamma", adds_special_tokens=True)
    ]
    rows = [[*ids, 0], [*ids[:2], ids[-1], 0, 0]]
    mask = [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
    expected = [unit_vector(api, "beta gamma"), unit_vector(api, "beta")]

    def int_tensor(name: str, values: Any, **extra: Any) -> dict[str, Any]:
        return {"name": name, "shape": [2, 5], "datatype": "INT64", **extra, **values}

    inputs = [
        int_tensor("input_ids", {"data": rows}),
        int_tensor("attention_mask", {"data": [x for row in mask for x in row]}),
    ]
    np.testing.assert_allclose(vectors(await infer(api, {"inputs": inputs})), expected, atol=1e-6)
    size = {"parameters": {"binary_data_size": 80}}
    raw = [int_tensor("input_ids", size), int_tensor("attention_mask", size)]
    tail = np.array(rows, "<i8").tobytes() + np.array(mask, "<i8").tobytes()
    answer = await infer(api, {"inputs": raw}, tail)
    np.testing.assert_allclose(vectors(answer), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"prompt_name": "query"}, "query : alpha"),
        ({"input_type": "document"}, "passage : alpha"),
        ({"timeout": 5_000_000, "priority": 1, "sequence_id": 7}, "alpha"),
        ({"truncate": "start"}, "alpha"),
    ],
)
async def test_parameters(api: Api, parameters: dict[str, Any], text: str) -> None:
    """Parameters of ours and Triton's take effect; those of sequences are ignored."""
    head = {"inputs": [tensor(["alpha"])], "parameters": parameters}
    np.testing.assert_allclose(vectors(await infer(api, head)), [unit_vector(api, text)], atol=1e-6)


async def test_a_timeout_in_microseconds(api: Api) -> None:
    """Triton's `timeout`, in microseconds, becomes the deadline."""
    api.served.backend.gate.clear()
    head = {"inputs": [tensor(["alpha"])], "parameters": {"timeout": 20_000}}
    answer = await infer(api, head)
    api.served.backend.gate.set()
    assert answer.status_code == 504


GOOD = binary(["alpha"])
LIES: list[tuple[str, dict[str, Any], bytes, str | None]] = [
    ("no inputs", {}, b"", None),
    ("inputs of numbers", {"inputs": [7]}, b"", None),
    ("no name", {"inputs": [{"shape": [1]}]}, b"", None),
    ("no datatype", {"inputs": [{"name": "text", "shape": [1]}]}, b"", None),
    ("no shape", {"inputs": [{"name": "text", "datatype": "BYTES"}]}, b"", None),
    ("negative shape", {"inputs": [{**tensor(["a"]), "shape": [-1]}]}, b"", None),
    ("wrong shape", {"inputs": [{**tensor(["a"]), "shape": [2]}]}, b"", None),
    ("no data", {"inputs": [{"name": "t", "shape": [1], "datatype": "BYTES"}]}, b"", None),
    ("numbers for strings", {"inputs": [{**tensor(["a"]), "data": [7]}]}, b"", None),
    ("ragged data", {"inputs": [{**tensor(["a"]), "data": ["a", ["b"]], "shape": [2]}]}, b"", None),
    ("strings for numbers", {"inputs": [{**tensor(["a"]), "datatype": "INT32"}]}, b"", None),
    ("text of numbers", {"inputs": [{**tensor([]), "datatype": "INT32", "data": []}]}, b"", None),
    ("size too large", {"inputs": [{**GOOD, "parameters": {"binary_data_size": 99}}]}, b"x", None),
    ("size negative", {"inputs": [{**GOOD, "parameters": {"binary_data_size": -1}}]}, b"x", None),
    ("size no number", {"inputs": [{**GOOD, "parameters": {"binary_data_size": "9"}}]}, b"x", None),
    ("bytes left over", {"inputs": [GOOD]}, packed(["alpha"]) + b"x", None),
    ("element too long", {"inputs": [GOOD]}, b"\xff\xff\xff\xff12345", None),
    (
        "ends in a length",
        {"inputs": [{**GOOD, "parameters": {"binary_data_size": 2}}]},
        b"12",
        None,
    ),
    ("length beyond the body", {"inputs": [GOOD]}, b"", "999999"),
    ("length no number", {"inputs": [GOOD]}, b"", "-1"),
    ("length in the middle", {"inputs": [GOOD]}, b"", "5"),
    ("unknown output", {"inputs": [tensor(["a"])], "outputs": [{"name": "x"}]}, b"", None),
    ("outputs no list", {"inputs": [tensor(["a"])], "outputs": 7}, b"", None),
    ("parameters no object", {"inputs": [tensor(["a"])], "parameters": [7]}, b"", None),
    ("two loose texts", {"inputs": [tensor(["a"], "x"), tensor(["a"], "y")]}, b"", None),
    (
        "ids of one axis",
        {"inputs": [{**tensor([]), "name": "input_ids", "datatype": "INT32"}]},
        b"",
        None,
    ),
]


@pytest.mark.parametrize(
    ("head", "tail", "json_length"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES]
)
async def test_lies(api: Api, head: dict[str, Any], tail: bytes, json_length: str | None) -> None:
    """Sizes, shapes and framing that lie are 400 with a string."""
    headers = {} if json_length is None else {LENGTH.replace("-", "_"): json_length}
    answer = await infer(api, head, tail, **headers)
    assert answer.status_code == 400, answer.text
    assert isinstance(answer.json()["error"], str)


@given(
    tail=st.binary(max_size=60),
    sizes=st.lists(st.integers(-3, 70), min_size=1, max_size=3),
    datatype=st.sampled_from(["BYTES", "INT32", "INT64", "UINT8"]),
    shape=st.lists(st.integers(-1, 9), min_size=0, max_size=3),
)
def test_framing_never_crashes(
    tail: bytes, sizes: list[int], datatype: str, shape: list[int]
) -> None:
    """Whatever the bytes and sizes, the result is tensors or an error of ours."""
    inputs = [
        {
            "name": f"t{number}",
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": size},
        }
        for number, size in enumerate(sizes)
    ]
    try:
        tensors = read_tensors({"inputs": inputs}, tail, check_count=lambda count: None)
    except InputError:
        return
    assert sum(sizes) == len(tail)
    assert all(len(t.values) == np.prod(t.shape) for t in tensors.values())


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_texts_survive_the_framing(texts: list[str]) -> None:
    """Any texts, also empty ones, are read back from raw bytes as they were."""
    tensors = read_tensors(
        {"inputs": [binary(texts)]}, packed(texts), check_count=lambda count: None
    )
    assert tensors["text"].texts == texts


@pytest.mark.parametrize("name", ["org/fake-model", "org%2Ffake-model", "fake-model"])
async def test_models(api: Api, name: str) -> None:
    """Models are found by names with slashes, raw or encoded, with a version or without."""
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1"):
        body = (await api.client.get(path)).json()
        assert (body["versions"], body["outputs"][0]["shape"]) == (["1"], [-1, 8])
        assert (await api.client.get(f"{path}/ready")).status_code == 200
        answer = await api.client.post(f"{path}/infer", json={"inputs": [tensor(["a"])]})
        assert answer.status_code == 200
    for ending in ("config", "stats"):
        assert (await api.client.get(f"/v2/models/{name}/{ending}")).status_code == 200
    assert (await api.client.post(f"/v2/models/{name}", json={})).status_code == 404
    assert (await api.client.get("/v2/models/other/ready")).status_code == 404


async def test_the_server(make_api: MakeApi) -> None:
    """Health is open, and models are behind the key."""
    api = make_api(api_keys=["k"])
    assert (await api.client.get("/v2")).json()["extensions"] == ["binary_tensor_data"]
    assert (await api.client.get("/v2/health/live")).json() == {"live": True}
    assert (await api.client.get("/v2/health/ready")).json() == {"ready": True}
    for path in ("/v2/models/fake-model", "/v2/models/fake-model/ready"):
        assert (await api.client.get(path)).status_code == 401
    headers = {"authorization": "Bearer k"}
    index = await api.client.post("/v2/repository/index", headers=headers)
    assert index.json() == [{"name": "org/fake-model", "version": "1", "state": "READY"}]
