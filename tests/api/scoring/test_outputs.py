"""Every dtype at every size, in each dialect that has a word for it, against numpy alone."""

import base64
from typing import Any

import numpy as np
import pytest
from nestvec.api.dialect_table import DIALECTS
from nestvec.engine.text.encoded import Fit
from nestvec.engine.types import Truncation
from nestvec.engine.vectors.quantization import Quantiser
from numpy.typing import NDArray

from tests.api.applications import Api
from tests.support.fakes import HIDDEN, fake_vector

TEXTS = ["alpha", "beta gamma", "one two three red"]
DTYPES = ["float", "float16", "int8", "uint8", "binary", "ubinary"]
BYTES = dict(zip(DTYPES, ("<f4", "<f2", "i1", "u1", "i1", "u1"), strict=True))


def unit_vectors(api: Api, dimensions: int | None) -> NDArray[np.float64]:
    """Cut and renormalised, in float64."""
    encoded = api.served.tokenizer.encode_texts(TEXTS, Fit(Truncation.END))
    raw = np.stack([fake_vector(e.ids) for e in encoded]).astype(np.float64)[:, :dimensions]
    found: NDArray[np.float64] = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return found


def computed(api: Api, dtype: str, dimensions: int | None) -> NDArray[Any]:
    """What the dtype's definition says (api-contract 8), from the float vectors."""
    vectors = unit_vectors(api, dimensions).astype(np.float32)
    if dtype in ("float", "float16"):
        converted: NDArray[Any] = vectors.astype(BYTES[dtype])
        return converted
    if dtype in ("binary", "ubinary"):
        bits = [["1" if x > 0 else "0" for x in row] for row in vectors]
        packed = [[int("".join(row[i : i + 8]), 2) for i in range(0, len(row), 8)] for row in bits]
        codes: NDArray[Any] = np.array(packed) - (128 if dtype == "binary" else 0)
        return codes
    reach = 3.5 / np.sqrt(vectors.shape[1])  # nothing was calibrated
    places = (vectors.astype(np.float64) + reach) / (2 * reach / 255) + 1e-3
    clipped: NDArray[Any] = np.clip(np.floor(places), 0, 255).astype(int)
    return clipped - (128 if dtype == "int8" else 0)


def check(api: Api, found: Any, dtype: str, dimensions: int | None) -> None:
    """A list, or base64, of the dtype's values."""
    if isinstance(found[0], str):
        found = [np.frombuffer(base64.b64decode(text), BYTES[dtype]) for text in found]
    np.testing.assert_allclose(found, computed(api, dtype, dimensions), atol=1e-6)
    if dtype not in ("float", "float16"):
        assert all(isinstance(value, int | np.integer) for row in found for value in row)


async def ask(api: Api, path: str, body: dict[str, Any]) -> Any:
    """POST; gives the answer."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dimensions", [None, 1, 3, 8])
@pytest.mark.parametrize("form", ["float", "base64"])
async def test_values_equal_numpys(api: Api, dtype: str, dimensions: int | None, form: str) -> None:
    """OpenAI's extension, Voyage, and vLLM's route; bits only where there are whole bytes."""
    if dtype in ("binary", "ubinary") and (dimensions or HIDDEN) % 8:
        body = {"input": TEXTS, "output_dtype": dtype, "dimensions": dimensions}
        assert (await api.embed(body)).status_code == 400
        return
    options = {"output_dtype": dtype, "encoding_format": form}
    for path, name in (("/v1/embeddings", "embedding"), ("/pooling", "data")):
        answer = await ask(api, path, {"input": TEXTS, "dimensions": dimensions, **options})
        check(api, [item[name] for item in answer["data"]], dtype, dimensions)
    voyage = {"input": TEXTS, "output_dimension": dimensions, **options}
    answer = await ask(api, "/v1/embeddings", voyage)
    check(api, [item["embedding"] for item in answer["data"]], dtype, dimensions)


@pytest.mark.parametrize("dtype", DTYPES)
async def test_the_other_dialects_agree(api: Api, dtype: str) -> None:
    """Cohere, Jina, the Open Inference Protocol as numbers and as raw bytes."""
    cohere = await ask(api, "/v2/embed", {"texts": TEXTS, "embedding_types": [dtype]})
    check(api, cohere["embeddings"][dtype], dtype, None)
    jina = await ask(api, "/v1/embeddings", {"input": TEXTS, "embedding_type": dtype})
    check(api, [item["embedding"] for item in jina["data"]], dtype, None)
    tensor = {"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS}
    body = {"inputs": [tensor], "parameters": {"embedding_type": dtype}}
    path = "/v2/models/fake-model/infer"
    (output,) = (await ask(api, path, body))["outputs"]
    numbers = np.array(output["data"]).reshape(output["shape"])
    np.testing.assert_allclose(numbers, computed(api, dtype, None), atol=1e-6)
    body["parameters"] = {"embedding_type": dtype, "binary_data_output": True}
    answer = await api.client.post(path, json=body)
    behind = answer.content[int(answer.headers["inference-header-content-length"]) :]
    raw = np.frombuffer(behind, BYTES[dtype]).reshape(output["shape"])
    np.testing.assert_array_equal(raw, computed(api, dtype, None).astype(BYTES[dtype]))


async def test_one_request_may_ask_for_several_types(api: Api) -> None:
    """One run of the model; exactly the keys asked for. base64 is float32, whatever stands beside it."""
    types = ["int8", "float", "base64", "ubinary"]
    cohere = await ask(api, "/v2/embed", {"texts": TEXTS, "embedding_types": types})
    assert list(cohere["embeddings"]) == types
    jina = await ask(api, "/v1/embeddings", {"input": TEXTS, "embedding_type": types})
    by_type = {word: [item["embedding"][word] for item in jina["data"]] for word in types}
    for found in (cohere["embeddings"], by_type):
        for word in types:
            check(api, found[word], "float" if word == "base64" else word, None)
    assert len(api.served.backend.batches) == 2


@pytest.mark.parametrize("dialect", ["openai", "voyage", "cohere", "jina"])
async def test_base64_is_what_the_table_says(api: Api, dialect: str) -> None:
    """Of float32 whatever stands beside it, or of the dtype that was asked for."""
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "openai": ("/v1/embeddings", {"input": TEXTS, "output_dtype": "int8"}),
        "voyage": ("/v1/embeddings", {"input": TEXTS, "output_dtype": "int8", "truncation": True}),
        "cohere": ("/v2/embed", {"texts": TEXTS, "embedding_types": ["int8", "base64"]}),
        "jina": ("/v1/embeddings", {"input": TEXTS, "embedding_type": ["int8", "base64"]}),
    }
    path, body = bodies[dialect]
    if dialect in ("openai", "voyage"):
        body["encoding_format"] = "base64"
    answer = await ask(api, path, body)
    if dialect == "cohere":
        packed = answer["embeddings"]["base64"]
    else:
        packed = [item["embedding"] for item in answer["data"]]
        packed = [one if isinstance(one, str) else one["base64"] for one in packed]
    width = 1 if DIALECTS[dialect].base64_is == "dtype" else 4
    assert [len(base64.b64decode(one)) for one in packed] == [width * HIDDEN] * 3


async def test_the_ranges_are_named(api: Api) -> None:
    """Codes of other ranges must not be mixed."""
    for dtype in ("int8", "uint8"):
        answer = await api.embed({"input": TEXTS, "output_dtype": dtype})
        assert answer.headers["x-embed-quantization"] == Quantiser().id
    for dtype in ("float", "ubinary"):
        answer = await api.embed({"input": TEXTS, "output_dtype": dtype})
        assert "x-embed-quantization" not in answer.headers
    model = (await api.client.get("/v1/models/fake-model")).json()
    info = (await api.client.get("/info")).json()
    assert model["quantization"] == {"id": Quantiser().id, "source": "formula"}
    assert info["quantization"] == model["quantization"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"output_dtype": "int8", "normalize": False}, "output_dtype"),
        ({"output_dtype": "ubinary", "dimensions": 7}, "dimensions"),
        ({"output_dtype": "int4"}, "output_dtype"),
        ({"embed_dtype": "float64"}, "embed_dtype"),
        ({"endianness": "middle"}, "endianness"),
    ],
)
async def test_what_cannot_be_is_refused(api: Api, asked: dict[str, Any], expected: str) -> None:
    """By the field's name."""
    answer = await api.embed({"input": TEXTS, **asked})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, expected)
