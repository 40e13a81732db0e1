"""Every dtype at every size, in each dialect that has a word for it, against plain numpy."""

import base64
from typing import Any

import numpy as np
import pytest
from nestvec.api.dialect_table import DIALECTS
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import Truncation
from nestvec.engine.vectors.quantization import Quantizer
from numpy.typing import NDArray

from tests.api.applications import Api
from tests.support.fakes import HIDDEN, fake_vector

TEXTS = ["alpha", "beta gamma", "one two three red"]
DTYPES = ["float", "float16", "int8", "uint8", "binary", "ubinary"]
BYTES = dict(zip(DTYPES, ("<f4", "<f2", "i1", "u1", "i1", "u1"), strict=True))


def unit_vectors(api: Api, dimensions: int | None) -> NDArray[np.float64]:
    """Return the vectors of the texts, cut and of unit length, as `[3, D]` float64."""
    encoded = api.served.tokenizer.encode_texts(TEXTS, TokenizeOptions(Truncation.END))
    raw = np.stack([fake_vector(e.ids) for e in encoded]).astype(np.float64)[:, :dimensions]
    vectors: NDArray[np.float64] = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return vectors


def computed(api: Api, dtype: str, dimensions: int | None) -> NDArray[Any]:
    """Return the values that the definition of a dtype gives for the float vectors."""
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
    scaled = (vectors.astype(np.float64) + reach) / (2 * reach / 255) + 1e-3
    clipped: NDArray[Any] = np.clip(np.floor(scaled), 0, 255).astype(int)
    return clipped - (128 if dtype == "int8" else 0)


def check(api: Api, vectors: Any, dtype: str, dimensions: int | None) -> None:
    """Check vectors of an answer, lists or base64, against the values of the dtype."""
    if isinstance(vectors[0], str):
        vectors = [np.frombuffer(base64.b64decode(text), BYTES[dtype]) for text in vectors]
    np.testing.assert_allclose(vectors, computed(api, dtype, dimensions), atol=1e-6)
    if dtype not in ("float", "float16"):
        assert all(isinstance(value, int | np.integer) for row in vectors for value in row)


async def ask(api: Api, path: str, body: dict[str, Any]) -> Any:
    """POST a body that must succeed; returns the answer."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dimensions", [None, 1, 3, 8])
@pytest.mark.parametrize("form", ["float", "base64"])
async def test_values_equal_numpys(api: Api, dtype: str, dimensions: int | None, form: str) -> None:
    """OpenAI's extension, Voyage and vLLM's route give numpy's values; bits only where they fill whole bytes."""
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
    """Cohere, Jina and the Open Inference Protocol give the same values, the last as numbers and as raw bytes."""
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
    tensor_bytes = answer.content[int(answer.headers["inference-header-content-length"]) :]
    raw = np.frombuffer(tensor_bytes, BYTES[dtype]).reshape(output["shape"])
    np.testing.assert_array_equal(raw, computed(api, dtype, None).astype(BYTES[dtype]))


async def test_one_request_may_ask_for_several_types(api: Api) -> None:
    """Several types come from one run of the model, under exactly the keys asked for; base64 is of float32."""
    types = ["int8", "float", "base64", "ubinary"]
    cohere = await ask(api, "/v2/embed", {"texts": TEXTS, "embedding_types": types})
    assert list(cohere["embeddings"]) == types
    jina = await ask(api, "/v1/embeddings", {"input": TEXTS, "embedding_type": types})
    by_type = {word: [item["embedding"][word] for item in jina["data"]] for word in types}
    for vectors_by_type in (cohere["embeddings"], by_type):
        for word in types:
            check(api, vectors_by_type[word], "float" if word == "base64" else word, None)
    assert len(api.served.backend.batches) == 2


@pytest.mark.parametrize("dialect", ["openai", "voyage", "cohere", "jina"])
async def test_base64_is_what_the_table_says(api: Api, dialect: str) -> None:
    """base64 holds float32 or the dtype that was asked for, as the table of dialects says."""
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
        packed = [item if isinstance(item, str) else item["base64"] for item in packed]
    width = 1 if DIALECTS[dialect].base64_keeps_dtype else 4
    assert [len(base64.b64decode(text)) for text in packed] == [width * HIDDEN] * 3


async def test_the_ranges_are_named(api: Api) -> None:
    """Answers of int8 and uint8 name their ranges, as codes of different ranges must not be mixed."""
    for dtype in ("int8", "uint8"):
        answer = await api.embed({"input": TEXTS, "output_dtype": dtype})
        assert answer.headers["x-embed-quantization"] == Quantizer().id
    for dtype in ("float", "ubinary"):
        answer = await api.embed({"input": TEXTS, "output_dtype": dtype})
        assert "x-embed-quantization" not in answer.headers
    model = (await api.client.get("/v1/models/fake-model")).json()
    info = (await api.client.get("/info")).json()
    assert model["quantization"] == {"id": Quantizer().id, "source": "formula"}
    assert info["quantization"] == model["quantization"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"output_dtype": "int8", "normalize": False}, "output_dtype"),
        ({"output_dtype": "ubinary", "dimensions": 7}, "dimensions"),
        ({"output_dtype": "int4"}, "output_dtype"),
        ({"embed_dtype": "float64"}, "embed_dtype"),
        ({"endianness": "middle"}, "endianness"),
    ],
)
async def test_impossible_options_are_refused(
    api: Api, options: dict[str, Any], param: str
) -> None:
    """Options that exclude each other, or that nothing has, are refused by the field's name."""
    answer = await api.embed({"input": TEXTS, **options})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
