"""What a request multiplies is bounded before it is made: cells, fields of documents, bodies of bodies, tensors."""

import json
from typing import Any

import numpy as np
import pytest
from nestvec.api.dialects.tensors import read_tensors
from nestvec.errors import InputError, RequestTooLargeError

from tests.api.applications import Api

INFER = "/v2/models/org/fake-model/infer"


class Reader:
    """Refuses counts over a bound, as a request does."""

    def __call__(self, count: int) -> None:
        """Refuse a count."""
        if count > 4:
            raise RequestTooLargeError("too many", param="inputs")


def described(datatype: str, shape: list[int], size_bytes: int) -> dict[str, Any]:
    """Return the JSON of a request with one tensor behind it."""
    parameters = {"binary_data_size": size_bytes}
    item = {"name": "text", "datatype": datatype, "shape": shape, "parameters": parameters}
    return {"inputs": [item]}


@pytest.mark.parametrize(
    ("datatype", "shape"), [("BYTES", [5]), ("BYTES", [1, 5]), ("INT8", [5, 1]), ("INT64", [5])]
)
def test_tensors_are_counted_before_they_are_read(datatype: str, shape: list[int]) -> None:
    """Of a tensor of too many elements no element is looked at: its bytes would not be any."""
    with pytest.raises(RequestTooLargeError):
        read_tensors(described(datatype, shape, 3), b"\xff\xff\xff", check_count=Reader())
    data = {"name": "text", "datatype": datatype, "shape": shape, "data": [None] * 5}
    with pytest.raises(RequestTooLargeError):
        read_tensors({"inputs": [data]}, b"", check_count=Reader())


def test_no_more_texts_are_read_than_the_shape_says() -> None:
    """A tensor of millions of empty texts is refused behind those of its shape."""
    raw = bytes(4 * 1000)
    with pytest.raises(InputError, match="more than 2 elements"):
        read_tensors(described("BYTES", [2], len(raw)), raw, check_count=Reader())


def test_many_tensors_are_refused() -> None:
    """Texts go into one tensor."""
    items = [{"name": f"t{n}", "datatype": "INT8", "shape": [0], "data": []} for n in range(17)]
    with pytest.raises(InputError, match="max 16"):
        read_tensors({"inputs": items}, b"", check_count=Reader())


def test_long_texts_are_decoded_as_short_ones_are() -> None:
    """A character is not torn where a slice ends, and what is no UTF-8 is replaced as by Python."""
    text = b"a" * (64 * 1024 - 1) + "\u00e9\U0001f642".encode() + b"\xff\xf0\x9f" * 70_000 + b"\xe6"
    raw = len(text).to_bytes(4, "little") + text
    tensors = read_tensors(described("BYTES", [1], len(raw)), raw, check_count=Reader())
    assert tensors["text"].texts == [text.decode("utf-8", "replace")]


async def test_padded_ids_are_counted_without_their_padding(api: Api) -> None:
    """A mask leaves padding out of the tokens that a request may have; without one all ids count."""
    limit = api.served.service.limits.max_tokens
    rows, width = 400, limit // 400 + 1

    async def answer(*names: str) -> tuple[int, str]:
        ids = np.full((rows, width), 7, "<i2")
        mask = np.zeros((rows, width), "<i2")
        mask[:, :3] = 1
        arrays = {"input_ids": ids, "attention_mask": mask}
        items = [
            {
                "name": name,
                "datatype": "INT16",
                "shape": [rows, width],
                "parameters": {"binary_data_size": arrays[name].nbytes},
            }
            for name in names
        ]
        head = json.dumps({"inputs": items}).encode()
        response = await api.client.post(
            INFER,
            content=head + b"".join(arrays[name].tobytes() for name in names),
            headers={"inference-header-content-length": str(len(head))},
        )
        return response.status_code, response.text

    assert (await answer("input_ids", "attention_mask"))[0] == 200
    status, text = await answer("input_ids")
    assert status == 400
    assert f"max {limit} per request" in text


async def test_cells_of_all_pairs_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """`explain` refuses pairs of too many tokens before the model runs on them, and says what to do."""
    body = {"pairs": [["alpha beta", "gamma"]] * 3, "explain": True}
    answer = await api.client.post("/v1/similarity", json=body)
    assert answer.status_code == 200, answer.text
    tables = [np.array(row["contributions"]) for row in answer.json()["explanations"]]
    cells = sum(table.size for table in tables)
    monkeypatch.setattr("nestvec.api.routes.similarity.MAX_CELLS", cells)
    assert (await api.client.post("/v1/similarity", json=body)).status_code == 200
    monkeypatch.setattr("nestvec.api.routes.similarity.MAX_CELLS", cells - 1)
    refused = await api.client.post("/v1/similarity", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "explain"
    assert "fewer pairs, or shorter texts" in refused.json()["error"]["message"]


async def test_fields_by_documents_are_bounded(api: Api) -> None:
    """`rank_fields` names few fields, each once: a name repeated would repeat the text of every document."""
    documents = [{"a": "alpha"}, {"a": "beta"}]
    body = {"query": "alpha", "documents": documents, "rank_fields": ["a"] * 64}
    answer = await api.client.post("/v2/rerank", json={**body, "return_documents": True})
    assert answer.status_code == 200, answer.text
    texts = {row["document"]["text"] for row in answer.json()["results"]}
    assert texts == {"alpha", "beta"}
    refused = await api.client.post("/v2/rerank", json={**body, "rank_fields": ["a"] * 65})
    assert refused.status_code == 400
    missing = await api.client.post("/v2/rerank", json={**body, "rank_fields": ["secret name"]})
    assert missing.status_code == 400
    assert "secret" not in missing.text


async def test_inputs_of_all_bodies_are_counted(api: Api) -> None:
    """Several bodies in one request hold no more inputs together than a request may."""
    body = {"inputs": ["alpha"] * 100}
    answer = await api.client.post("/vertex", json={"instances": [body] * 20})
    assert answer.status_code == 200, answer.text
    assert [len(rows) for rows in answer.json()["predictions"]] == [100] * 20
    refused = await api.client.post("/vertex", json={"instances": [body] * 21})
    assert refused.status_code in (400, 413, 422)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "a", "examples": [{"query": "a", "response": "b"}] * 257}),
        ("/v1/embeddings", {"input": "a", "late_chunking": {"spans": [[[0] * 5000]]}}),
        ("/v2/embed", {"texts": ["a"], "embedding_types": ["float"] * 65}),
        ("/v1/embeddings", {"input": [{"text": "a"}], "embedding_type": ["float"] * 65}),
        ("/v1/embeddings", {"input": "a", **{f"f{n}": 1 for n in range(33_000)}}),
    ],
    ids=["examples", "span", "types", "Jina's types", "fields"],
)
async def test_lists_of_options_are_bounded(api: Api, path: str, body: dict[str, Any]) -> None:
    """Options that are lists have a length at which they are refused, unlooked at."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code in (400, 422), answer.text
