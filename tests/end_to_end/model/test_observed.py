"""A real Prometheus over a server under a mixed load: all panels and rules have something to show, counts are exact."""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from nestvec.keys.records import KeyFile, KeyLimits
from nestvec.observability.energy_metrics import EnergyZone
from nestvec.observability.metrics import Metrics
from nestvec.system.nvml import GpuState
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from typing_extensions import override

from tests.docs.test_alerts import RULES, rules
from tests.docs.test_dashboards import expressions
from tests.end_to_end.model.observed_load import (
    BAD_LINES,
    GOOD_LINES,
    MAX_BODY_BYTES,
    MAX_INPUTS,
    STATIC,
    MixedLoad,
)
from tests.support.server import RunningServer, running_server
from tests.support.services import prometheus_server

KEY: Final = "sk-observed-0123456789"
LOAD_S: Final = 12
WAIT_S: Final = 60.0
UP: Final = 'up{job="nestvec"} == 1'
MAX_SERIES: Final = 1500
# Only machines with such devices and servers with a reference of texts have these; asked of a registry, below.
NOT_EVERYWHERE: Final = ("nestvec_gpu_", "nestvec_energy_", "nestvec_drift_")

pytestmark = [pytest.mark.load, pytest.mark.model, pytest.mark.process]


@contextmanager
def prometheus_of(folder: Path, url: str) -> Iterator[str]:
    """Start a Prometheus that scrapes a server every two seconds and evaluates our rules; gives its address."""
    shutil.copy(RULES, folder)
    targets = [{"targets": [url.removeprefix("http://")]}]
    configuration = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
        "rule_files": [RULES.name],
        "scrape_configs": [{"job_name": "nestvec", "static_configs": targets}],
    }
    with prometheus_server(folder, configuration) as prometheus:
        yield prometheus.url


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """Return the series that an expression gives now."""
    found: list[dict[str, Any]] = []
    for _ in range(2):
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", answer
        found = answer["data"]["result"]
        # On a busy machine a scrape may come too late, and nothing is known until the next.
        if found or expression == UP:
            break
        wait_for(prometheus, UP)
    return found


def wait_for(prometheus: str, expression: str) -> None:
    """Wait until an expression gives something."""
    ends_s = time.monotonic() + WAIT_S
    while not ask(prometheus, expression):
        assert time.monotonic() < ends_s, expression
        time.sleep(0.2)


def wait_for_scrapes(prometheus: str) -> None:
    """Wait until what is so now has been scraped, by Prometheus's own clock, twice."""
    wait_for(prometheus, f"timestamp(nestvec_gpu_up or nestvec_ready) > {time.time() + 4}")


def counts(prometheus: str, metric: str, label: str) -> dict[str, float]:
    """Return a metric's sums by a label, without those that are 0."""
    found = ask(prometheus, f"sum by ({label}) ({metric})")
    values = {series["metric"].get(label, ""): float(series["value"][1]) for series in found}
    return {name: value for name, value in values.items() if value}


def series_of(server: RunningServer) -> int:
    """Return how many series a scrape gives."""
    text = httpx.get(f"{server.url}/metrics").text
    return sum(len(family.samples) for family in text_string_to_metric_families(text))


def settings_of(folder: Path, http_processes: int) -> tuple[dict[str, object], str]:
    """Return the settings of the server that is observed, and the key that is slow."""
    broken = folder / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "bert"}')
    path = folder / "keys.json"
    keys = KeyFile.read(path)
    slow_key = keys.add("slow", KeyLimits(requests_per_s=1))[1]
    keys.write()
    models = {"second": {"model": "static"}, "broken": {"model": str(broken)}}
    settings: dict[str, object] = {
        "model": "static",
        "models": json.dumps(models),
        "api_keys": KEY,
        "keys_file": path,
        "http_processes": http_processes,
        "vector_cache_bytes": 2**24,
        "max_body_bytes": MAX_BODY_BYTES,
        "max_inputs_per_request": MAX_INPUTS,
        "max_queue_tokens": 512,
    }
    return settings, slow_key


def send_all(load: MixedLoad) -> None:
    """Send everything once, and some traffic."""
    with httpx.Client(base_url=load.server.url, timeout=60) as client:
        load.batch(client)
        load.refusals(client)
        load.rate_limit(client)
        load.traffic(client, LOAD_S)
    load.flood()


def check_cache(prometheus: str, load: MixedLoad) -> None:
    """Hold what was counted of the cache, before anything else was sent, to what was sent."""
    hits = "nestvec_vector_cache_hits_total"
    assert counts(prometheus, hits, "model") == load.hits
    assert counts(prometheus, hits, "tier") == {"memory": load.hits.total()}
    for name, expected in (
        ("misses", load.misses),
        ("coalesced_inputs", +load.coalesced),
        ("saved_tokens", load.saved_tokens),
    ):
        assert counts(prometheus, f"nestvec_vector_cache_{name}_total", "model") == expected
    runs = load.misses.total() - load.coalesced.total()
    assert counts(prometheus, "nestvec_vector_cache_entries", "job") == {"nestvec": runs}
    assert counts(prometheus, "nestvec_batch_inputs_sum", "job") == {"nestvec": runs}


def check_counts(prometheus: str, load: MixedLoad) -> None:
    """Hold what was counted to what was sent."""
    users = 'nestvec_requests_total{route!=""}'
    statuses = {str(status): count for status, count in load.statuses.items()}
    assert counts(prometheus, users, "status") == statuses
    assert counts(prometheus, "nestvec_request_errors_total", "code") == +load.codes
    assert counts(prometheus, "nestvec_request_duration_seconds_count", "job") == {
        "nestvec": load.statuses.total()
    }
    assert counts(prometheus, "nestvec_inputs_total", "model") == load.inputs
    assert counts(prometheus, "nestvec_tokens_total", "model") == load.tokens
    assert counts(prometheus, "nestvec_request_tokens_sum", "model") == load.tokens
    assert counts(prometheus, "nestvec_request_inputs_sum", "model") == load.inputs
    assert counts(prometheus, "nestvec_vectors_total", "model") == load.inputs
    lines = {"completed": GOOD_LINES, "failed": BAD_LINES}
    assert counts(prometheus, "nestvec_batch_job_lines_total", "outcome") == lines
    assert counts(prometheus, "nestvec_batch_jobs_ended_total", "status") == {"completed": 1}
    refused = counts(prometheus, "nestvec_rate_limited_total", "reason")
    assert refused == {"requests": load.rate_refusals}
    of_queue = load.statuses[429] - load.rate_refusals
    assert counts(prometheus, "nestvec_refused_requests_total", "model") == {STATIC: of_queue}
    requests = counts(prometheus, "nestvec_key_requests_total", "key_id")
    assert max(requests.values()) == load.requests_of_key
    seen = counts(prometheus, "nestvec_batch_inputs_sum", "job")["nestvec"]
    hits = counts(prometheus, "nestvec_vector_cache_hits_total", "job")["nestvec"]
    waited = counts(prometheus, "nestvec_vector_cache_coalesced_inputs_total", "job")
    # What the queue refused and what came too late was looked up in the cache, too, or not: it is in no sum here.
    assert seen + hits + waited.get("nestvec", 0) >= load.inputs.total()
    assert hits >= load.hits.total()


def check_expressions(prometheus: str) -> None:
    """Every panel and every recording rule has data, and every metric of an alert is there."""
    empty = {place: query for place, query in expressions() if not ask(prometheus, query)}
    assert [query for query in empty.values() if not any(d in query for d in NOT_EVERYWHERE)] == []
    for rule in rules():
        if "record" in rule:
            assert ask(prometheus, rule["record"]), rule["record"]
        for metric in re.findall(r"\bnestvec_\w+", rule["expr"]):
            assert ask(prometheus, metric) or metric.startswith(NOT_EVERYWHERE), metric


@pytest.mark.parametrize("http_processes", [0, 1, 2, 4])
def test_everything_is_counted_and_shown(tmp_path: Path, http_processes: int) -> None:
    """In one process and in several: refusals of each kind, vectors, the cache, a batch. All is there, and exactly so.

    Of the cache, what one connection sends before all else: later the load fills it, and the cache chooses what goes.

    What bounds the series is the models, routes, statuses, codes, prompts' names and keys that there are, whatever is
    sent: twice the load, with other texts, fields, model names and paths, makes no more of them.
    """
    settings, slow_key = settings_of(tmp_path, http_processes)
    with (
        running_server(tmp_path, **settings) as server,
        prometheus_of(tmp_path, server.url) as prometheus,
    ):
        wait_for_scrapes(prometheus)  # without a first one no rise is seen
        load = MixedLoad(server, KEY, slow_key)
        load.keep_vectors()
        wait_for_scrapes(prometheus)
        check_cache(prometheus, load)
        send_all(load)
        wait_for_scrapes(prometheus)
        check_counts(prometheus, load)
        check_expressions(prometheus)
        firing = {a["metric"]["alertname"] for a in ask(prometheus, 'ALERTS{alertstate="firing"}')}
        assert firing <= {"NestvecModelNotLoaded"}  # one is broken on purpose
        before = series_of(server)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for number in range(100):
                load.send(client, "POST", f"/nowhere/{number}", json={})
                body = {"input": "a", "model": f"nope-{number}", f"field-{number}": 1}
                load.send(client, "POST", "/v1/embeddings", json=body)
            load.traffic(client, 2)
        assert series_of(server) == before
        print(f"{http_processes} HTTP processes: {before} series after the load")
        text = httpx.get(f"{server.url}/metrics").text
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("http_processes", [0, 4])
def test_a_new_server_has_few_series(tmp_path: Path, http_processes: int) -> None:
    """Of one model, before anybody has asked for anything."""
    with running_server(tmp_path, model="static", http_processes=http_processes) as server:
        series = series_of(server)
    print(f"{http_processes} HTTP processes: {series} series of one model at the start")
    assert series < MAX_SERIES


def test_panels_that_few_servers_fill_have_something_to_show(tmp_path: Path) -> None:
    """Asked of a registry that was told of a GPU, of a processor's energy and of a test for drift.

    No machine of the tests has the first two, and the third takes hundreds of texts.
    """
    metrics = Metrics(CollectorRegistry())
    zone = tmp_path / "zone"
    zone.mkdir()
    metrics.energy.watch([EnergyZone("package-0", zone, 10**12)])
    metrics.drift.drift_tested("static", distance=0.1, p=0.5)
    told = iter(range(10**9))

    class Scraped(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer a scrape; each finds 5 J more."""
            number = next(told)
            (zone / "energy_uj").write_text(str(5_000_000 * number))
            metrics.gpu.gpu_answered(0, GpuState(0.5, 5, 9, 60.0, 200.0, 0, 5.0 * number))
            content, kind = metrics.exposition("")
            self.send_response(200)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(content)

        @override
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Scraped) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with prometheus_of(tmp_path, f"http://127.0.0.1:{server.server_port}") as prometheus:
            wait_for(prometheus, "count_over_time(nestvec_energy_joules_total[1m]) > 2")
            for place, query in expressions():
                if any(name in query for name in NOT_EVERYWHERE):
                    assert ask(prometheus, query), place
            for rule in rules():
                for metric in re.findall(r"\bnestvec_(?:gpu|drift)_\w+", rule["expr"]):
                    assert ask(prometheus, metric), metric
        server.shutdown()
