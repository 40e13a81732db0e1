"""A real Prometheus over a server under a mixed load: every panel and every rule has something to show."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.docs.test_alerts import RULES, rules
from tests.docs.test_dashboards import expressions
from tests.support.server import RunningServer, running_server
from tests.support.services import prometheus_server

KEY: Final = "sk-observed-0123456789"
MODELS: Final = '{"second": {"model": "static"}}'
LOAD_S: Final = 20
# What is 0 or absent in health: errors, refusals, restarts, inputs that are given up. By words of their queries.
ONLY_IN_TROUBLE: Final = (
    *(
        "refused",
        "dropped",
        "rate_limited",
        "claims_lost",
        "windowed",
        'status!="200"',
        "prediction_error",
    ),
    *("truncated", "prompted", "gpu"),
)


@contextmanager
def prometheus_of(folder: Path, server: RunningServer) -> Iterator[str]:
    """Start a Prometheus that scrapes a server each second and evaluates our rules; gives its address."""
    shutil.copy(RULES, folder)
    target = server.url.removeprefix("http://")
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [RULES.name],
        "scrape_configs": [{"job_name": "nestvec", "static_configs": [{"targets": [target]}]}],
    }
    with prometheus_server(folder, configuration) as prometheus:
        yield prometheus.url


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """Return the series that an expression gives now."""
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def send_mixed_load(server: RunningServer, seconds: float) -> dict[str, int]:
    """Send requests of several kinds for so long; returns how many of each status."""
    statuses: dict[str, int] = {}
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        lines = "\n".join(
            json.dumps(
                {
                    "custom_id": str(number),
                    "method": "POST",
                    "url": "/v1/embeddings",
                    "body": {"model": "static", "input": f"line {number}"},
                }
            )
            for number in range(200)
        )
        uploaded = client.post(
            "/v1/files", files={"file": ("lines.jsonl", lines)}, data={"purpose": "batch"}
        )
        assert uploaded.status_code == httpx.codes.OK, uploaded.text
        body = {
            "input_file_id": uploaded.json()["id"],
            "endpoint": "/v1/embeddings",
            "completion_window": "24h",
        }
        assert client.post("/v1/batches", json=body).status_code == httpx.codes.OK
        ends_s, number = time.monotonic() + seconds, 0
        while time.monotonic() < ends_s:
            number += 1
            for path, request in (
                ("/v1/embeddings", {"input": [f"text {number} {n}" for n in range(20)]}),
                ("/v1/embeddings", {"input": "the same", "dimensions": 64, "output_dtype": "int8"}),
                ("/v1/embeddings", {"input": f"second {number}", "model": "second"}),
                ("/embed", {"inputs": f"a text of tei {number}"}),
                ("/v1/embeddings", {"input": []}),
            ):
                status = str(client.post(path, json=request).status_code)
                statuses[status] = statuses.get(status, 0) + 1
    return statuses


@pytest.mark.load
@pytest.mark.model
@pytest.mark.process
@pytest.mark.parametrize("http_processes", [0, 2])
def test_every_panel_has_something_to_show(tmp_path: Path, http_processes: int) -> None:
    """In one process and in several; what is empty is what only trouble or a GPU shows. Counts are the load's own.

    Series: models, routes that were used, statuses and keys bound them, whatever is sent.
    """
    settings: dict[str, object] = {
        "model": "static",
        "models": MODELS,
        "api_keys": KEY,
        "http_processes": http_processes,
        "vector_cache_bytes": 2**24,
    }
    with running_server(tmp_path, **settings) as server, prometheus_of(tmp_path, server) as url:
        statuses = send_mixed_load(server, LOAD_S)
        time.sleep(3)
        empty = {place: query for place, query in expressions() if not ask(url, query)}
        unexpected = {
            place: query
            for place, query in empty.items()
            if not any(word in query for word in ONLY_IN_TROUBLE)
        }
        assert unexpected == {}
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        nothing = [name for name in recorded if not ask(url, name)]
        assert all(name.startswith("nestvec:errors:") for name in nothing), nothing
        assert ask(url, 'ALERTS{alertstate="firing"}') == []
        for status, count in statuses.items():
            counted = 'sum(nestvec_requests_total{route=~"/v1/embeddings|/embed",status="%s"})'
            assert float(ask(url, counted % status)[0]["value"][1]) == count
        series = int(ask(url, 'count({job="nestvec"})')[0]["value"][1])
        print(f"{series} series")
        assert series < 3000
