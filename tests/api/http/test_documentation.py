"""The documentation: a complete OpenAPI document, and a page that needs no other host."""

import asyncio
import dataclasses
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from nestvec.api.http import documentation

from tests.api.applications import Api, MakeApi
from tests.api.http.test_auth import OPEN_TO_ALL
from tests.support.served import SPEC, ServedOptions
from tests.support.server import running_server
from tests.support.tiny import write_tiny_bert

BROWSER = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# What stands for a picture in examples.
PICTURE = "base64,…"


async def test_the_openapi_document_describes_the_routes(api: Api) -> None:
    """The document has every route's bodies, answers, errors and examples, and no aliases."""
    document = (await api.client.get("/openapi.json")).json()
    embeddings = document["paths"]["/v1/embeddings"]["post"]
    content = embeddings["requestBody"]["content"]["application/json"]
    bodies = {schema["title"]: set(schema["properties"]) for schema in content["schema"]["anyOf"]}
    assert {"input", "dimensions", "truncate"} <= bodies["EmbeddingsRequest"]
    assert {"input", "truncation"} <= bodies["VoyageRequest"]
    assert {"input", "task"} <= bodies["JinaRequest"]
    assert {"openai", "voyage", "jina"} <= set(content["examples"])
    assert embeddings["tags"] == ["openai", "voyage", "jina"]
    sections = {tag["name"] for tag in document["tags"]}
    used = {tag for o in document["paths"].values() for op in o.values() for tag in op["tags"]}
    assert used == sections
    assert {"200", "400", "401", "404", "413", "429", "503", "504"} <= set(embeddings["responses"])
    assert {"/v1/models", "/v1/models/{model}", "/health/ready", "/metrics"} <= set(
        document["paths"]
    )
    assert "/embeddings" not in document["paths"]  # an alias


async def test_the_document_says_where_a_key_goes(make_api: MakeApi) -> None:
    """Each header that carries a key is a scheme, optional as servers may have none; what is open to all needs none."""
    document = (await make_api(api_keys=["k"]).client.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert {scheme.get("name") for scheme in schemes.values()} == {None, "api-key", "x-api-key"}
    assert document["security"] == [{}, *({name: []} for name in schemes)]
    is_open = {
        path
        for path, operations in document["paths"].items()
        if any(operation.get("security") == [] for operation in operations.values())
    }
    assert is_open == OPEN_TO_ALL & set(document["paths"])


async def test_the_document_is_made_in_a_thread(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making it takes a while, which holds nobody up, and is done once for all who ask at the same time."""
    made_in: list[str] = []
    make = documentation._with_security

    def note(document: dict[str, object]) -> dict[str, object]:
        made_in.append(threading.current_thread().name)
        return make(document)

    monkeypatch.setattr(documentation, "_with_security", note)
    answers = await asyncio.gather(*(api.client.get("/openapi.json") for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(made_in) == 1
    assert made_in[0] != threading.main_thread().name


async def test_every_example_is_answered(make_api: MakeApi) -> None:
    """Every example of the document is answered as it stands there; those of pictures as far as there is no picture."""
    spec = dataclasses.replace(SPEC, name="all-MiniLM-L6-v2", max_tokens=64)
    api = make_api(ServedOptions(spec=spec))
    document = (await api.client.get("/openapi.json")).json()
    seen = 0
    for path, operations in document["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {})
        examples = content.get("application/json", {}).get("examples", {})
        for parameter in operations.get("post", {}).get("parameters", []):
            first = parameter["schema"].get("examples", [""])[0]
            path = path.replace(f"{{{parameter['name']}}}", first)  # noqa: PLW2901
        for name, example in examples.items():
            # The fake model has 8 dimensions where the examples' has 384.
            body = json.loads(json.dumps(example["value"]).replace(": 128", ": 8"))
            if path == "/decode":
                body = {"ids": [2, 5, 3]}
            if is_of_pictures := PICTURE in str(body):
                body["model"] = spec.name
            answer = await api.client.post(path, json=body)
            if is_of_pictures:
                # It has no pixels, and the fake model takes texts only, which is found out once all is read.
                assert answer.status_code == 400, (path, name, answer.text)
                assert "images need a multimodal model" in answer.text, (path, name, answer.text)
                seen += 1
                continue
            # Two routes describe what they need, and answer that the model is another one.
            status = 424 if path in ("/embed_sparse", "/predict") else 200
            assert answer.status_code == status, (path, name, answer.text)
            seen += 1
    assert seen >= 20


async def test_the_page_loads_its_parts_from_here(api: Api) -> None:
    """Every script and style of the page comes from this server."""
    page = (await api.client.get("/docs")).text
    for link in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert link.startswith("/"), link
        assert (await api.client.get(link)).status_code == 200, link


@pytest.mark.process
def test_a_real_browser_shows_the_routes(tmp_path: Path) -> None:
    """Chromium runs the page's script against a real server, and shows the routes."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium absent")
    model = write_tiny_bert(tmp_path / "model")
    with running_server(tmp_path, model=model, cache_dir=tmp_path / "cache") as server:
        line = [
            browser,
            *BROWSER,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
        ]
        done = subprocess.run(
            [*line, "--dump-dom", f"{server.url}/docs"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "Create embeddings" in done.stdout
    assert "List models" in done.stdout
