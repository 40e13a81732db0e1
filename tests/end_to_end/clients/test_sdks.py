"""Real client SDKs, unmodified, from a venv of their own, against a real server with the default model."""

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
from tests.support.server import Server, running_server

pytestmark = [pytest.mark.clients, pytest.mark.model, pytest.mark.process]
HERE = Path(__file__).parent
KEY = "test-key"


@pytest.fixture(scope="module")
def server(default_package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a key, and the cl100k table from a file."""
    del default_package  # skips where the model is absent
    table = cl100k_table()
    with running_server(tmp_path_factory.mktemp("sdks"), api_keys=KEY, cl100k_file=table) as made:
        yield made


def run(line: list[str], server: Server) -> dict[str, Any]:
    """Run a client script; it prints JSON."""
    environment = {
        **os.environ,
        "TIKTOKEN_CACHE_DIR": str(cl100k_table().parent),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [*line, server.url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run_python(name: str, server: Server) -> dict[str, Any]:
    """Run a script in the clients' venv."""
    return run([str(clients_python()), str(HERE / "scripts" / name)], server)


def expected(server: Server, texts: list[str], **options: object) -> NDArray[np.float32]:
    """Vectors by plain HTTP."""
    body = {"input": texts, "encoding_format": "base64", **options}
    answer = httpx.post(
        f"{server.url}/v1/embeddings", json=body, headers={"authorization": f"Bearer {KEY}"}
    )
    rows = [np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in answer.json()["data"]]
    return np.stack(rows)


def test_openai_python(server: Server) -> None:
    """Both formats to the bit, cuts, models, and its own exception classes."""
    found = run_python("openai_client.py", server)
    wanted = expected(server, found["texts"])
    np.testing.assert_allclose(found["default"], wanted, atol=1e-6)
    np.testing.assert_allclose(found["float"], wanted, atol=1e-6)
    np.testing.assert_allclose(
        found["cut"], expected(server, ["hello"], dimensions=64)[0], atol=1e-6
    )
    assert found["models"] == ["all-MiniLM-L6-v2"]
    assert found["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert found["request_id"].startswith("req_")
    assert found["unknown_model"] == {
        "class": "NotFoundError",
        "status": 404,
        "code": "model_not_found",
        "param": "model",
        "has_request_id": True,
    }
    assert (found["bad_item"]["status"], found["bad_item"]["param"]) == (400, "input[1]")
    assert (found["bad_dimensions"]["status"], found["bad_dimensions"]["param"]) == (
        400,
        "dimensions",
    )
    assert found["refused"] == "invalid_api_key"


def test_the_readmes_example(server: Server, tmp_path: Path) -> None:
    """As it stands there, but for the address and the key."""
    readme = (HERE.parents[2] / "README.md").read_text()
    match = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert match is not None
    code = match[1].replace("http://127.0.0.1:8080", server.url).replace('"any"', repr(KEY))
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run([clients_python(), script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["128", "6"]


def test_openai_node(server: Server) -> None:
    """It decodes base64 itself, and would give garbage for a float list."""
    if shutil.which("node") is None or not (HERE / "node/node_modules/openai").is_dir():
        pytest.skip("Node or its openai package absent, run `make clients` with npm on PATH")
    found = run(["node", str(HERE / "node/openai_client.mjs")], server)
    wanted = expected(server, found["texts"])
    np.testing.assert_allclose(found["default"], wanted, atol=1e-6)
    np.testing.assert_allclose(found["float"], wanted, atol=1e-6)
    assert len(found["cut"]) == 64
    assert found["models"] == ["all-MiniLM-L6-v2"]
    assert found["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert found["failure"] == {
        "status": 404,
        "code": "model_not_found",
        "type": "invalid_request_error",
    }


def test_langchain_with_its_default_settings(server: Server) -> None:
    """Token ids of another vocabulary become the vectors of the texts they stand for."""
    found = run_python("langchain_client.py", server)
    wanted = expected(server, found["texts"])
    np.testing.assert_allclose(found["default"], wanted, atol=1e-5)
    np.testing.assert_allclose(found["plain"], wanted, atol=1e-6)
    np.testing.assert_allclose(found["empty"], expected(server, ["", "hello"]), atol=1e-5)
    np.testing.assert_allclose(found["query"], wanted[0], atol=1e-5)
    assert len(found["small"]) == 64


def test_llama_index(server: Server) -> None:
    """By its default model's name and by ours."""
    found = run_python("llama_index_client.py", server)
    wanted = expected(server, found["texts"])
    for name in ("default", "named"):
        np.testing.assert_allclose(found[name], wanted, atol=1e-6)
    np.testing.assert_allclose(found["query"], wanted[0], atol=1e-6)


def test_litellm(server: Server) -> None:
    """And it recognises a text that is too long."""
    found = run_python("litellm_client.py", server)
    np.testing.assert_allclose(found["default"], expected(server, found["texts"]), atol=1e-6)
    assert found["too_long"] == "ContextWindowExceededError"


def check(found: Any, server: Server, texts: list[str], **options: object) -> None:
    """Vectors that a client got, against those of plain HTTP."""
    np.testing.assert_allclose(found, expected(server, texts, **options), atol=1e-5)


def test_azure(server: Server) -> None:
    """Its path, key header and prefix."""
    found = run_python("azure_client.py", server)
    check(found["default"], server, found["texts"])
    check([found["cut"]], server, ["hello"], dimensions=64)
    assert found["models"] == ["all-MiniLM-L6-v2"]
    assert found["refused"] == "model_not_found"


def codes(server: Server, texts: list[str], dtype: str, dimensions: int) -> NDArray[Any]:
    """Vectors in a dtype, by plain HTTP."""
    body = {"input": texts, "output_dtype": dtype, "dimensions": dimensions}
    headers = {"authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{server.url}/v1/embeddings", json=body, headers=headers)
    return np.array([item["embedding"] for item in answer.json()["data"]])


def test_cohere(server: Server) -> None:
    """Both versions, six types at once, rerank, typed exceptions."""
    found = run_python("cohere_client.py", server)
    texts = found["texts"]
    check(found["default"], server, texts)
    check(found["v1"], server, texts)
    check(found["types"]["float"], server, texts, dimensions=64)
    for dtype in ("int8", "uint8", "binary", "ubinary"):
        np.testing.assert_array_equal(found["types"][dtype], codes(server, texts, dtype, 64))
    packed = [np.frombuffer(base64.b64decode(text), "<f4") for text in found["types"]["base64"]]
    check(packed, server, texts, dimensions=64)
    assert (found["v1_count"], found["tokens"], found["ranked"]) == (200, 6, [1])
    assert found["failures"] == {
        "model": ["NotFoundError", 404],
        "long": ["BadRequestError", 400],
        "key": ["UnauthorizedError", 401],
    }


def test_voyage(server: Server) -> None:
    """Every dtype decoded from base64, chunks, rerank, typed exceptions."""
    found = run_python("voyage_client.py", server)
    texts = found["texts"]
    check(found["default"], server, texts)
    check(found["dtypes"]["float"], server, texts, dimensions=64)
    for dtype in ("int8", "uint8", "binary", "ubinary"):
        np.testing.assert_array_equal(found["dtypes"][dtype], codes(server, texts, dtype, 64))
    assert [len(document) for document in found["chunks"]] == [1, 2]
    check(found["chunks"][0], server, ["hello"])  # a lone chunk is a plain text
    check(found["chunks"][1], server, ["one", "two"], late_chunking=True)
    assert (found["tokens"], found["ranked"]) == (6, [[1, "a dog"]])
    assert found["failures"] == {
        "long": ["InvalidRequestError", 400],
        "key": ["AuthenticationError", 401],
    }


def test_ollama(server: Server) -> None:
    """Its own client, and langchain's."""
    found = run_python("ollama_client.py", server)
    for name in ("default", "langchain"):
        check(found[name], server, found["texts"])
    check([found["langchain_query"]], server, ["hello"])
    check([found["langchain_cut"]], server, ["word " * 999], truncate=True)
    check([found["small"]], server, ["hello"], dimensions=64)
    check([found["old"]], server, ["hello"], normalize=False)
    assert (found["tokens"], found["too_large"], found["nothing"]) == (6, 384, [])
    assert found["models"] == found["running"] == ["all-MiniLM-L6-v2:latest"]
    assert found["shown"] == 384
    assert found["refused"] == "404 model 'none' not found"


def test_huggingface(server: Server) -> None:
    """huggingface_hub's client at either URL, and langchain's endpoint class."""
    found = run_python("huggingface_client.py", server)
    for name in ("default", "root", "langchain"):
        check(found[name], server, found["texts"])
    check([found["langchain_query"]], server, ["hello"])
    assert found["cut"] == [1, 384]
    assert found["similarity"][0] > found["similarity"][1]
    assert found["refused"] == "422 True"


def test_llama_indexs_tei_client(server: Server) -> None:
    """It asks for truncation, and takes whatever comes for vectors."""
    found = run_python("tei_client.py", server)
    check(found["default"], server, found["texts"])
    check([found["query"]], server, ["hello"])
    check([found["long"]], server, [("word " * 999).strip()], truncate=True)


def test_haystack(server: Server) -> None:
    """Three of its embedders."""
    found = run_python("haystack_client.py", server)
    for name in ("default", "tei", "jina"):
        check(found[name], server, found["texts"])
    for name in ("query", "tei_query"):
        check([found[name]], server, ["hello"])
    assert found["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


def test_triton(server: Server) -> None:
    """Binary, JSON and gzip give the same to the bit; codes keep their type."""
    found = run_python("triton_client.py", server)
    for name in ("default", "json", "gzip"):
        check(found[name], server, found["texts"])
    dtype, values = found["int8"]
    assert dtype == "int8"
    np.testing.assert_array_equal(values, codes(server, found["texts"], "int8", 64))
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert (found["metadata"], found["server"]) == ([-1, 384], ["binary_tensor_data"])
    assert "does not exist" in found["refused"]


def test_litellms_other_providers(server: Server) -> None:
    """Each sends its vendor's dialect."""
    found = run_python("litellm_providers.py", server)
    for name in ("hosted_vllm", "cohere", "voyage", "jina_ai", "infinity", "azure"):
        check(found[name], server, found["texts"])
    assert found["ranked"] == [1]


def test_openai_batches(server: Server) -> None:
    """Ten thousand requests through files and batches; vectors are those of the endpoint."""
    found = run_python("openai_batches.py", server)
    assert (found["first_status"], found["status"]) == ("validating", "completed")
    assert found["counts"] == {"total": 10_000, "completed": 10_000, "failed": 0}
    assert (found["lines"], found["ids"]) == (10_000, 10_000)
    assert found["metadata"] == {"from": "the sdk"}
    sample = {
        name: np.frombuffer(base64.b64decode(v), "<f4") for name, v in found["sample"].items()
    }
    plain = expected(server, [f"record {name[1:]}" for name in sample], dimensions=64)
    np.testing.assert_allclose(np.stack(list(sample.values())), plain, atol=1e-5)
    assert found["listed"] == 5  # input, output, and three more, two a page
    assert found["listed_once"]
    assert found["batches"]
    assert (found["deleted"], found["missing"]) == (True, "id")
    assert found["bad"] == ["failed", "missing_required_parameter", 1]
    assert found["cancelled_after_its_end"] == "completed"
