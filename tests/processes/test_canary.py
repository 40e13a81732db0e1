"""No text, token, vector or key leaves a server except in answers: logs, metrics, spans, errors and files are searched.

The spans that a collector is sent show how a request is traced through the processes, too.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from nestvec.keys.records import KeyFile, KeyLimits

from tests.end_to_end.fuzz.requests import operations_of
from tests.processes.one_trace import assert_logged, assert_one_trace, send_traced
from tests.support.collector import HAS_SDK, running_collector
from tests.support.server import RunningServer, running_server
from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process
# In every text of a body.
CANARY = "kanarienvogel"
# In every array of token ids.
IDS = [97, 89, 83, 79, 73, 71, 67]
# Fields that hold names and no texts: errors may quote these, as in "the model `x` does not exist".
NAMES = {
    *(
        "model",
        "id",
        "encoding_format",
        "input_type",
        "task",
        "prompt_name",
        "datatype",
        "name",
        "truncate",
    ),
    *(
        "embedding_types",
        "output_dtype",
        "kind",
        "splitter",
        "dtype",
        "purpose",
        "endpoint",
        "input_file_id",
    ),
    *(
        "embedding_type",
        "map",
        "truncation_direction",
        "completion_window",
        "custom_id",
        "method",
        "url",
    ),
}


def with_canary(value: Any, name: str = "") -> Any:
    """Mark every text of a body."""
    if isinstance(value, str):
        return value if name in NAMES else f"{CANARY} {value} {CANARY}"
    if isinstance(value, list):
        if value and all(
            isinstance(element, int) and not isinstance(element, bool) for element in value
        ):
            return value if name in ("shape", "dimensions", "layers", "spans") else IDS
        return [with_canary(element, name) for element in value]
    if isinstance(value, dict):
        return {key: with_canary(element, key) for key, element in value.items()}
    return value


def spoiled(body: Any) -> Iterator[bytes]:
    """Spoil a body in all ways that lead to an error which could quote something."""
    whole = json.dumps(body).encode()
    yield whole
    yield whole[:-3]
    yield whole.replace(b'"', b"'", 2)
    yield whole.replace(CANARY.encode(), b"\xff" + CANARY.encode(), 1)
    yield whole.replace(CANARY.encode(), b"\\ud800" + CANARY.encode(), 1)
    if isinstance(body, Mapping):
        yield json.dumps({**body, CANARY: CANARY}).encode()
        for key in set(body) - NAMES:
            yield json.dumps({**body, key: {CANARY: [CANARY]}}).encode()
            yield json.dumps({**body, key: f"{CANARY} " * 3000}).encode()
            yield json.dumps({**body, key: [CANARY, 7, None]}).encode()
            yield json.dumps({**body, key: [[10**12, *IDS]]}).encode()


def send_all(
    server: RunningServer, keys: Mapping[str, str]
) -> tuple[list[httpx.Response], set[str]]:
    """Send every example of every route, right and wrong; gives the answers, and numbers of the vectors in them."""
    answers: list[httpx.Response] = []
    vectors: set[str] = set()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        document = client.get("/openapi.json").json()
        for method, path, body in operations_of(document):
            url_path = re.sub(r"\{[^}]*\}", "all-MiniLM-L6-v2", path)
            for content in spoiled(with_canary(body)) if method == "POST" else [b""]:
                for key in keys.values():
                    answer = client.request(
                        method,
                        url_path,
                        content=content,
                        headers={"authorization": f"Bearer {key}"},
                    )
                    answers.append(answer)
                    if answer.is_success and method == "POST":
                        vectors |= set(re.findall(r"-?0\.\d{6,}", answer.text)[:3])
        for files in ({"file": ("in.jsonl", CANARY.encode())}, {"file": (CANARY, b"x")}, {}):
            form = {"purpose": "batch"}
            auth = {"authorization": f"Bearer {keys['good']}"}
            answers.append(client.post("/v1/files", data=form, files=files, headers=auth))
    return answers, vectors


@pytest.mark.parametrize("processes", [0, 1])
def test_nothing_leaks(tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaks at the most talkative log level, with every request's spans, through any route and any error."""
    model = write_tiny_bert(tmp_path / "model")
    file = KeyFile.read(tmp_path / "keys.json")
    _, good = file.add("good", KeyLimits())
    file.write()
    settings = {
        "model": model,
        "served_model_name": "all-MiniLM-L6-v2",
        "cache_dir": tmp_path / "cache",
        "keys_file": tmp_path / "keys.json",
        "vector_cache_file": tmp_path / "vectors.db",
        "log_level": "debug",
        "http_processes": processes,
    }
    keys = {"good": good, "wrong": good[:-4] + "zzzz"}
    with running_collector() as collector:
        if HAS_SDK:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
            # So that none is lost, however slow the machine is.
            monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1000000")
            monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "500")
        with running_server(tmp_path, **settings) as server:
            send_traced(server, good, CANARY)
            answers, vectors = send_all(server, keys)
            auth = {"authorization": f"Bearer {good}"}
            metrics = httpx.get(f"{server.url}/metrics", headers=auth).text
            assert server.terminate() == 0
    spans = b"".join(collector.bodies).decode("utf-8", "replace")
    assert_logged(server)
    if HAS_SDK:
        roles = ("front-0", "core") if processes else ("server", "server")
        assert_one_trace(collector.spans(), *roles)
    statuses = {answer.status_code for answer in answers}
    assert {200, 400, 401, 404, 422} <= statuses
    assert not {status for status in statuses if status >= 500}
    assert len(vectors) > 20
    secrets = [
        CANARY,
        *keys.values(),
        good.split("_", 2)[2],
        ", ".join(map(str, IDS)),
        "97,89,83,79",
    ]
    for source, text in (("log", server.logs()), ("metrics", metrics), ("spans", spans)):
        leaked = [secret for secret in (*secrets, *vectors) if secret in text]
        assert not leaked, (source, leaked[:3])
    for answer in answers:
        if answer.status_code >= 400:
            assert CANARY not in answer.text, (answer.request.url, answer.text[:500])
            assert not [key for key in keys.values() if key in answer.text]
    for path in tmp_path.rglob("*"):
        is_users = "data" in path.parts and "files" in path.parts
        if path.is_file() and not is_users and path.name != "in.jsonl":
            content = path.read_bytes()
            assert CANARY.encode() not in content, path
            assert good.split("_", 2)[2].encode() not in content, path
