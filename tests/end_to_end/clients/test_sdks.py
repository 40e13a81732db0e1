"""Unmodified client SDKs, in a virtual environment of their own, against a real server with the default model."""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.model_store.package import Package
from numpy.typing import NDArray

from tests.end_to_end.clients.venv import cl100k_table, clients_python
from tests.support.server import RunningServer, running_server

pytestmark = [pytest.mark.clients, pytest.mark.model, pytest.mark.process]
HERE = Path(__file__).parent
KEY = "test-key"


@pytest.fixture(scope="module")
def server(
    default_package: Package, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server with an API key, and the cl100k table from a file."""
    del default_package  # skips where the model is absent
    table = cl100k_table()
    with running_server(
        tmp_path_factory.mktemp("sdks"), api_keys=KEY, cl100k_file=table
    ) as running:
        yield running


def run(arguments: list[str], server: RunningServer) -> dict[str, Any]:
    """Run a client script, and return the JSON that it prints."""
    environment = {
        **os.environ,
        "TIKTOKEN_CACHE_DIR": str(cl100k_table().parent),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [*arguments, server.url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return printed


def run_python(name: str, server: RunningServer, *arguments: str) -> dict[str, Any]:
    """Run a script in the clients' virtual environment; the server's URL is its last argument."""
    return run([str(clients_python()), str(HERE / "scripts" / name), *arguments], server)


# The model's own name first; others for clients that look for "embed" in a name.
LISTED = ["all-MiniLM-L6-v2", "text-embedding-3-small", "text-embedding-3-large"]


def expected(server: RunningServer, texts: list[str], **options: object) -> NDArray[np.float32]:
    """Return vectors by plain HTTP, `[B, D]`."""
    body = {"input": texts, "encoding_format": "base64", **options}
    answer = httpx.post(
        f"{server.url}/v1/embeddings", json=body, headers={"authorization": f"Bearer {KEY}"}
    )
    rows = [np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in answer.json()["data"]]
    return np.stack(rows)


def test_openai_python(server: RunningServer) -> None:
    """OpenAI's client gets both formats to the bit, cut vectors, models, and its own exception classes."""
    printed = run_python("openai_client.py", server)
    vectors = expected(server, printed["texts"])
    np.testing.assert_allclose(printed["default"], vectors, atol=1e-6)
    np.testing.assert_allclose(printed["float"], vectors, atol=1e-6)
    np.testing.assert_allclose(
        printed["cut"], expected(server, ["hello"], dimensions=64)[0], atol=1e-6
    )
    assert printed["models"] == LISTED
    assert printed["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert printed["request_id"].startswith("req_")
    assert printed["unknown_model"] == {
        "class": "NotFoundError",
        "status": 404,
        "code": "model_not_found",
        "param": "model",
        "has_request_id": True,
    }
    assert (printed["bad_item"]["status"], printed["bad_item"]["param"]) == (400, "input[1]")
    assert (printed["bad_dimensions"]["status"], printed["bad_dimensions"]["param"]) == (
        400,
        "dimensions",
    )
    assert printed["refused"] == "invalid_api_key"


def test_the_readmes_example(server: RunningServer, tmp_path: Path) -> None:
    """The example in the README runs as it stands there, but for the address and the key."""
    readme = (HERE.parents[2] / "README.md").read_text()
    match = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert match is not None
    code = match[1].replace("http://127.0.0.1:8080", server.url).replace('"any"', repr(KEY))
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run([clients_python(), script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["128", "6"]


def run_node(name: str, package: str, server: RunningServer) -> dict[str, Any]:
    """Run a script by Node, with the packages of its folder."""
    if shutil.which("node") is None or not (HERE / "node/node_modules" / package).is_dir():
        pytest.skip(f"Node or its package {package} absent, run `make clients` with npm on PATH")
    return run(["node", str(HERE / "node" / name)], server)


def test_openai_node(server: RunningServer) -> None:
    """OpenAI's Node client, which decodes base64 and would give garbage for a float list, gets the vectors."""
    printed = run_node("openai_client.mjs", "openai", server)
    vectors = expected(server, printed["texts"])
    np.testing.assert_allclose(printed["default"], vectors, atol=1e-6)
    np.testing.assert_allclose(printed["float"], vectors, atol=1e-6)
    assert len(printed["cut"]) == 64
    assert printed["models"] == LISTED
    assert printed["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert printed["failure"] == {
        "status": 404,
        "code": "model_not_found",
        "type": "invalid_request_error",
    }


def test_clients_of_node(server: RunningServer) -> None:
    """Eight npm clients, each in its own dialect, get the vectors of plain HTTP, cut and quantized ones too."""
    printed = run_node("sdk_clients.mjs", "@llamaindex/openai", server)
    clients, texts = printed["clients"], printed["texts"]
    assert len(clients) == 8
    assert {name: got["failed"] for name, got in clients.items() if "failed" in got} == {}
    for got in clients.values():
        check(got["vectors"], server, texts)
        if "cut" in got:
            check([got["cut"]], server, texts[:1], dimensions=64)
    assert sum("cut" in got for got in clients.values()) == 7
    for dtype in ("int8", "ubinary"):
        expected_codes = codes(server, texts, dtype, 64)
        np.testing.assert_array_equal(clients["cohere-ai"][dtype], expected_codes)
    assert [clients[name]["ranked"] for name in ("cohere-ai", "voyageai")] == [[1], [1]]
    assert clients["ollama"]["models"] == ["all-MiniLM-L6-v2:latest"]
    rain, cat = clients["@huggingface/inference"]["similarities"]
    assert cat > rain
    assert clients["@ai-sdk/openai-compatible"]["tokens"] == 12


def test_langchain_with_its_default_settings(server: RunningServer) -> None:
    """Token ids of another vocabulary become the vectors of the texts that they stand for."""
    printed = run_python("langchain_client.py", server)
    vectors = expected(server, printed["texts"])
    np.testing.assert_allclose(printed["default"], vectors, atol=1e-5)
    np.testing.assert_allclose(printed["plain"], vectors, atol=1e-6)
    np.testing.assert_allclose(printed["empty"], expected(server, ["", "hello"]), atol=1e-5)
    np.testing.assert_allclose(printed["query"], vectors[0], atol=1e-5)
    assert len(printed["small"]) == 64


def test_llama_index(server: RunningServer) -> None:
    """llama-index gets the vectors by its default model's name and by ours."""
    printed = run_python("llama_index_client.py", server)
    vectors = expected(server, printed["texts"])
    for name in ("default", "named"):
        np.testing.assert_allclose(printed[name], vectors, atol=1e-6)
    np.testing.assert_allclose(printed["query"], vectors[0], atol=1e-6)


def test_litellm(server: RunningServer) -> None:
    """Litellm gets the vectors, and recognizes a text that is too long."""
    printed = run_python("litellm_client.py", server)
    np.testing.assert_allclose(printed["default"], expected(server, printed["texts"]), atol=1e-6)
    assert printed["too_long"] == "ContextWindowExceededError"


def check(vectors: Any, server: RunningServer, texts: list[str], **options: object) -> None:
    """Check vectors that a client got against those of plain HTTP."""
    np.testing.assert_allclose(vectors, expected(server, texts, **options), atol=1e-5)


def test_azure(server: RunningServer) -> None:
    """The Azure client's path, key header and model prefix work."""
    printed = run_python("azure_client.py", server)
    check(printed["default"], server, printed["texts"])
    check([printed["cut"]], server, ["hello"], dimensions=64)
    assert printed["models"] == LISTED
    assert printed["refused"] == "model_not_found"


def codes(server: RunningServer, texts: list[str], dtype: str, dimensions: int) -> NDArray[Any]:
    """Return vectors in a dtype by plain HTTP, `[B, D]`, or `[B, D / 8]` for bits."""
    body = {"input": texts, "output_dtype": dtype, "dimensions": dimensions}
    headers = {"authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{server.url}/v1/embeddings", json=body, headers=headers)
    return np.array([item["embedding"] for item in answer.json()["data"]])


def test_cohere(server: RunningServer) -> None:
    """Cohere's client gets both versions, six types at once, rerank, and its typed exceptions."""
    printed = run_python("cohere_client.py", server)
    texts = printed["texts"]
    check(printed["default"], server, texts)
    check(printed["v1"], server, texts)
    check(printed["types"]["float"], server, texts, dimensions=64)
    for dtype in ("int8", "uint8", "binary", "ubinary"):
        np.testing.assert_array_equal(printed["types"][dtype], codes(server, texts, dtype, 64))
    packed = [np.frombuffer(base64.b64decode(text), "<f4") for text in printed["types"]["base64"]]
    check(packed, server, texts, dimensions=64)
    assert (printed["v1_count"], printed["tokens"], printed["ranked"]) == (200, 6, [1])
    assert printed["failures"] == {
        "model": ["NotFoundError", 404],
        "long": ["BadRequestError", 400],
        "key": ["UnauthorizedError", 401],
    }


def test_gemini(server: RunningServer) -> None:
    """google-genai embeds in batches, titles documents, lists models, and raises its exceptions with Google's words."""
    printed = run_python("gemini_client.py", server)
    check(printed["default"], server, ["hello", "world"])
    check(printed["small"], server, ["A title\nhello", "A title\nworld"], dimensions=64)
    assert "models/all-MiniLM-L6-v2" in printed["models"]
    assert printed["one"] == "models/all-MiniLM-L6-v2"
    assert printed["failures"] == {
        "model": ["ClientError", 404, "NOT_FOUND"],
        "task": ["ClientError", 400, "INVALID_ARGUMENT"],
        "key": ["ClientError", 401, "UNAUTHENTICATED"],
    }


def test_voyage(server: RunningServer) -> None:
    """Voyageai's client decodes every dtype from base64, and gets chunks, rerank and its typed exceptions."""
    printed = run_python("voyage_client.py", server)
    texts = printed["texts"]
    check(printed["default"], server, texts)
    check(printed["dtypes"]["float"], server, texts, dimensions=64)
    for dtype in ("int8", "uint8", "binary", "ubinary"):
        np.testing.assert_array_equal(printed["dtypes"][dtype], codes(server, texts, dtype, 64))
    assert [len(document) for document in printed["chunks"]] == [1, 2]
    check(printed["chunks"][0], server, ["hello"])  # a lone chunk is a plain text
    check(printed["chunks"][1], server, ["one", "two"], late_chunking=True)
    assert (printed["tokens"], printed["ranked"]) == (6, [[1, "a dog"]])
    assert printed["failures"] == {
        "long": ["InvalidRequestError", 400],
        "key": ["AuthenticationError", 401],
    }


def test_ollama(server: RunningServer) -> None:
    """Ollama's own client and langchain's get the vectors."""
    printed = run_python("ollama_client.py", server)
    for name in ("default", "langchain"):
        check(printed[name], server, printed["texts"])
    check([printed["langchain_query"]], server, ["hello"])
    check([printed["langchain_cut"]], server, ["word " * 999], truncate=True)
    check([printed["small"]], server, ["hello"], dimensions=64)
    check([printed["old"]], server, ["hello"], normalize=False)
    assert (printed["tokens"], printed["too_large"], printed["nothing"]) == (6, 384, [])
    assert printed["models"] == printed["running"] == ["all-MiniLM-L6-v2:latest"]
    assert printed["shown"] == 384
    assert printed["refused"] == "404 model 'none' not found"


def test_huggingface(server: RunningServer) -> None:
    """huggingface_hub's client at either URL and langchain's endpoint class get the vectors."""
    printed = run_python("huggingface_client.py", server)
    for name in ("default", "root", "langchain"):
        check(printed[name], server, printed["texts"])
    check([printed["langchain_query"]], server, ["hello"])
    assert printed["cut"] == [1, 384]
    assert printed["similarity"][0] > printed["similarity"][1]
    assert printed["refused"] == "422 True"


def test_llama_indexs_tei_client(server: RunningServer) -> None:
    """llama-index's TEI client, which asks for truncation and never looks at a status, gets vectors."""
    printed = run_python("tei_client.py", server)
    check(printed["default"], server, printed["texts"])
    check([printed["query"]], server, ["hello"])
    check([printed["long"]], server, [("word " * 999).strip()], truncate=True)


def test_haystack(server: RunningServer) -> None:
    """Three of Haystack's embedders get the vectors."""
    printed = run_python("haystack_client.py", server)
    for name in ("default", "tei", "jina"):
        check(printed[name], server, printed["texts"])
    for name in ("query", "tei_query"):
        check([printed[name]], server, ["hello"])
    assert printed["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


def test_triton(server: RunningServer) -> None:
    """Binary, JSON and gzip give the same to the bit, and codes keep their dtype."""
    printed = run_python("triton_client.py", server)
    for name in ("default", "json", "gzip"):
        check(printed[name], server, printed["texts"])
    dtype, values = printed["int8"]
    assert dtype == "int8"
    np.testing.assert_array_equal(values, codes(server, printed["texts"], "int8", 64))
    assert (printed["live"], printed["ready"], printed["model_ready"]) == (True, True, True)
    assert (printed["metadata"], printed["server"]) == ([-1, 384], ["binary_tensor_data"])
    assert "does not exist" in printed["refused"]


def test_litellms_other_providers(server: RunningServer) -> None:
    """Litellm's other providers each work in their vendor's dialect."""
    printed = run_python("litellm_providers.py", server)
    for name in ("hosted_vllm", "cohere", "voyage", "jina_ai", "infinity", "azure"):
        check(printed[name], server, printed["texts"])
    assert printed["ranked"] == [1]


# Five groups of lines, of which three are worked on at once; ten of them in `make test-load`.
@pytest.mark.parametrize("count", [5_000, pytest.param(10_000, marks=pytest.mark.load)])
def test_openai_batches(server: RunningServer, count: int) -> None:
    """Thousands of requests through files and batches give the endpoint's vectors."""
    printed = run_python("openai_batches.py", server, str(count))
    assert (printed["first_status"], printed["status"]) == ("validating", "completed")
    assert printed["counts"] == {"total": count, "completed": count, "failed": 0}
    assert (printed["lines"], printed["ids"]) == (count, count)
    assert printed["metadata"] == {"from": "the sdk"}
    sample = {
        name: np.frombuffer(base64.b64decode(v), "<f4") for name, v in printed["sample"].items()
    }
    plain = expected(server, [f"record {name[1:]}" for name in sample], dimensions=64)
    np.testing.assert_allclose(np.stack(list(sample.values())), plain, atol=1e-5)
    assert printed["listed"] == 5  # input, output, and three more, two a page
    assert printed["listed_once"]
    assert printed["batches"]
    assert (printed["deleted"], printed["missing"]) == (True, "id")
    assert printed["bad"] == ["failed", "missing_required_parameter", 1]
    assert printed["cancelled_after_its_end"] == "completed"
