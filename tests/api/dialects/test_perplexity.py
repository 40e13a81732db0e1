"""Perplexity's form of chunks in the context of their document: Voyage's vectors, in Perplexity's encodings."""

import base64
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.api.applications import Api

PATH = "/v1/contextualizedembeddings"
DOCUMENTS = [["alpha", "beta gamma"], ["red"]]
LONG = "alpha " * 40


async def answer_to(api: Api, body: dict[str, Any]) -> dict[str, Any]:
    """POST a body, and return the answer, which must be good."""
    answer = await api.client.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


async def voyages(api: Api, **options: Any) -> NDArray[Any]:
    """Return the vectors of the same documents in Voyage's form, `[3, D]`."""
    answer = await answer_to(api, {"inputs": DOCUMENTS, **options})
    rows = [item["embedding"] for document in answer["data"] for item in document["data"]]
    return np.array(rows)


def decoded(answer: dict[str, Any], dtype: str) -> NDArray[Any]:
    """Decode the vectors as Perplexity's pages show it."""
    rows = [item["embedding"] for document in answer["data"] for item in document["data"]]
    return np.stack([np.frombuffer(base64.b64decode(row), dtype) for row in rows])


@pytest.mark.parametrize("extra", [{}, {"encoding_format": None}, {"dimensions": 4}])
async def test_signed_bytes_are_the_default(api: Api, extra: dict[str, Any]) -> None:
    """Vectors are nested as the chunks are, int8 in base64; tokens count as prompt's and as all."""
    answer = await answer_to(api, {"model": "fake-model", "input": DOCUMENTS, **extra})
    assert list(answer) == ["object", "data", "model", "usage"]
    assert [(d["object"], d["index"], [i["index"] for i in d["data"]]) for d in answer["data"]] == [
        ("list", 0, [0, 1]),
        ("list", 1, [0]),
    ]
    assert {item["object"] for d in answer["data"] for item in d["data"]} == {"embedding"}
    assert answer["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    dimensions = extra.get("dimensions")
    expected = await voyages(api, output_dtype="int8", output_dimension=dimensions)
    np.testing.assert_array_equal(decoded(answer, "i1"), expected)
    assert expected.shape == (3, dimensions or 8)


async def test_bits_begin_with_the_lowest(api: Api) -> None:
    """Of each byte, the first sign is in the lowest bit, where other vendors have it in the highest."""
    answer = await answer_to(api, {"input": DOCUMENTS, "encoding_format": "base64_binary"})
    bits = np.unpackbits(decoded(answer, "u1"), axis=1, bitorder="little")
    signs = await voyages(api) > 0
    np.testing.assert_array_equal(bits, signs)
    assert (bits != bits[:, ::-1]).any()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a"}, "input"),
        ({"input": None}, "input"),
        ({"input": ["a"]}, "input[0]"),
        ({"input": [["a"], []]}, "input[1]"),
        ({"input": [["a"], ["b", LONG]]}, "input[1][1]"),
        ({"input": [["a", ""]]}, "input[0][1]"),
        ({"input": [["a"]] * 513}, "input"),
        ({"input": [["a"]], "encoding_format": "float"}, "encoding_format"),
        ({"input": [["a"]], "dimensions": 9}, "dimensions"),
        ({"input": [["a"]], "dimensions": 4, "encoding_format": "base64_binary"}, "dimensions"),
        ({"input": [["a"]], "inputs": [["b"]], "output_dtype": "int8"}, "output_dtype"),
    ],
)
async def test_what_is_wrong_is_named(api: Api, body: dict[str, Any], param: str) -> None:
    """Errors name the document and the chunk, or Perplexity's field."""
    answer = await api.client.post(PATH, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
