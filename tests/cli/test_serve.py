"""`nestvec serve` as a real process: its start, signals, faults at the start, and logs."""

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from nestvec.processes.listeners import url_of

from tests.support.server import (
    RunningServer,
    command,
    environment,
    running_server,
    starting_server,
    wait_until_ready,
)
from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process
SECRET = "a very private sentence about alpha"
KEY = "key-of-a-customer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a cache."""
    folder = tmp_path_factory.mktemp("serve")
    write_tiny_bert(folder / "model")
    return folder


def settings(folder: Path) -> dict[str, object]:
    """Settings that serve the tiny model from its own cache."""
    return {"model": folder / "model", "cache_dir": folder / "cache"}


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[RunningServer]:
    """A server that is ready."""
    with running_server(tmp_path, **settings(folder)) as server:
        yield server


def test_it_serves_and_exits_with_0(server: RunningServer) -> None:
    """A server answers without a Server header, and one SIGTERM ends it with status 0."""
    answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": "alpha", "dimensions": 4})
    assert len(answer.json()["data"][0]["embedding"]) == 4
    assert "server" not in answer.headers
    assert server.terminate() == 0
    # Where nobody looks there is no banner: an event says where the server is.
    events = [json.loads(log_line) for log_line in server.logs().splitlines()]
    ready = [event for event in events if event["event"] == "ready"]
    assert [(event["url"], event["authenticated"]) for event in ready] == [(server.url, False)]


def test_sigterm_drains_what_is_in_flight(folder: Path, tmp_path: Path) -> None:
    """Readiness goes off first while requests are still served; none in flight is lost."""
    with running_server(tmp_path, **settings(folder), drain_grace_s=1.5) as server:
        statuses: list[int] = []

        def ask() -> None:
            body = {"input": ["alpha beta gamma delta"] * 1500}
            statuses.append(
                httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60).status_code
            )

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        ready = httpx.get(f"{server.url}/health/ready")
        late = httpx.post(f"{server.url}/v1/embeddings", json={"input": "alpha"})
        for thread in threads:
            thread.join()
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        assert late.status_code == 200
        assert statuses == [200] * 6
        assert server.process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health/live")


@pytest.mark.parametrize("http_processes", [0, 2])
def test_a_stop_under_load_cuts_nobody_off(
    folder: Path, tmp_path: Path, http_processes: int
) -> None:
    """Whoever could connect before the port closed is answered, even where the request came after that."""
    ended: list[int | str] = []

    def ask_until_refused(address: tuple[str, int]) -> None:
        while True:
            connection = HTTPConnection(*address, timeout=30)
            try:
                connection.connect()
            except ConnectionRefusedError:
                return
            try:
                connection.request("POST", "/v1/embeddings", '{"input": ["alpha", "beta"]}')
                answer = connection.getresponse()
                answer.read()
                ended.append(answer.status)
            except OSError as error:
                ended.append(type(error).__name__)
            finally:
                connection.close()

    more = {"drain_grace_s": 0.2, "http_processes": http_processes}
    with running_server(tmp_path, **settings(folder), **more) as server:
        url = httpx.URL(server.url)
        address = (url.host, url.port or 0)
        threads = [threading.Thread(target=ask_until_refused, args=(address,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert server.process.wait(30) == 0
    assert len(ended) > 8
    assert set(ended) == {200}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:"),  # noqa: S104 - not bound
        ("::", "http://[::1]:"),
        ("192.0.2.1", "http://192.0.2.1:"),
        ("127.0.0.1", "http://127.0.0.1:"),
    ],
)
def test_the_banner_names_an_address_to_connect_to(host: str, url: str) -> None:
    """Where the server listens on all addresses, as in a container, the banner names the loopback one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert url_of(listener, host) == f"{url}{listener.getsockname()[1]}"


def test_sigint_stops_without_the_grace(folder: Path, tmp_path: Path) -> None:
    """SIGINT ends the server without the grace time, as a person at a terminal expects."""
    with running_server(tmp_path, **settings(folder), drain_grace_s=300) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0


def test_a_second_signal_stops_at_once(folder: Path, tmp_path: Path) -> None:
    """A second signal ends the server even inside the grace time."""
    with running_server(tmp_path, **settings(folder), drain_grace_s=300) as server:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def test_no_text_and_no_key_is_logged(folder: Path, tmp_path: Path) -> None:
    """Nothing of good and bad requests is logged at the most talkative level; each line is JSON with an id."""
    with running_server(tmp_path, **settings(folder), api_keys=KEY, log_level="debug") as server:
        auth = {"authorization": f"Bearer {KEY}"}
        bodies: list[object] = [
            {"input": SECRET, "user": SECRET, "truncate": True},
            {"input": [SECRET, 1]},
            {"input": SECRET * 100},
            {"input": "a", "prompt": SECRET},
            {"input": "a", "prompt_name": SECRET},
            {"input": "a", "model": SECRET},
        ]
        for body in bodies:
            httpx.post(f"{server.url}/v1/embeddings", json=body, headers=auth)
        httpx.post(f"{server.url}/v1/embeddings", content=SECRET, headers=auth)
        httpx.get(f"{server.url}/v1/models/{SECRET}", headers=auth)
        httpx.get(f"{server.url}/{SECRET}?q={SECRET}", headers={"authorization": f"Bearer {KEY}x"})
        server.terminate()
        lines = [json.loads(line) for line in server.logs().splitlines()]
    assert "private" not in server.logs()
    assert KEY not in server.logs()
    requests = [
        line for line in lines if line["event"] == "request" and line["route"] == "/v1/embeddings"
    ]
    assert len(requests) == 7
    assert all(line["request_id"].startswith("req_") for line in requests)
    assert requests[0]["tokens"] > 0


def start(*arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run a `nestvec serve` that is expected to end by itself."""
    return subprocess.run(
        command("serve", *arguments),
        env=environment(offline=True, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_taken_port_is_a_clear_error(folder: Path) -> None:
    """The error names the port and the way out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = start(port=port, **settings(folder))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr


def test_an_address_that_is_none_is_a_clear_error(folder: Path) -> None:
    """The error names the setting."""
    done = start(host="no.such.host.invalid", allow_unauthenticated=True, **settings(folder))
    assert done.returncode == 2
    assert "host: 'no.such.host.invalid' is no address" in done.stderr


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("model.safetensors", "no model.safetensors"),
        ("tokenizer.json", "tokenizer.json is missing"),
        ("1_Pooling/config.json", "the pooling is unknown"),
        ("corrupt weights", "corrupt or unreadable"),
        ("whole folder", "no such folder"),
    ],
)
def test_a_model_that_cannot_be_served_ends_the_start(
    tmp_path: Path, spoil: str, reason: str
) -> None:
    """The server exits with 1 and one line that says why, without a traceback."""
    model = write_tiny_bert(tmp_path / "model")
    if spoil == "whole folder":
        shutil.rmtree(model)
    elif spoil == "corrupt weights":
        (model / "model.safetensors").write_bytes(b"\xff" * 1000)
    else:
        (model / spoil).unlink()
    done = start(port=0, model=model, cache_dir=tmp_path / "cache")
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    """The server exits with 1, and the reason."""
    model = write_tiny_bert(tmp_path / "model")
    (tmp_path / "cache").write_text("")
    done = start(port=0, model=model, cache_dir=tmp_path / "cache")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr


def test_a_provider_that_is_missing_ends_the_start(folder: Path) -> None:
    """A provider that was asked for never falls back silently."""
    done = start("--provider", "cuda", port=0, **settings(folder))
    assert done.returncode == 1
    assert "provider 'cuda' was asked for" in done.stderr


def test_a_damaged_artefact_is_caught_by_the_probes(tmp_path: Path) -> None:
    """Where bytes changed on disk the start ends, and wrong vectors are never served."""
    model = write_tiny_bert(tmp_path / "model")
    chosen = {"model": model, "cache_dir": tmp_path / "cache"}
    with running_server(tmp_path, **chosen):
        pass
    (weights,) = (tmp_path / "cache/artefacts").glob("*/weights.bin")
    content = bytearray(weights.read_bytes())
    for offset in range(0, len(content), 1000):
        content[offset + 3 : offset + 4] = b"\x40"
    weights.write_bytes(content)
    done = start(port=0, **chosen)
    assert done.returncode == 1
    assert "probe vectors" in done.stderr


def test_liveness_answers_while_the_model_loads(folder: Path, tmp_path: Path) -> None:
    """The port is open before the engine is ready."""
    with starting_server(tmp_path, **settings(folder)) as server:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                assert httpx.get(f"{server.url}/health/live").status_code == 200
                break
            except httpx.TransportError:
                time.sleep(0.02)
        wait_until_ready(server)


def test_clients_that_go_away_are_dropped(server: RunningServer) -> None:
    """Clients that go away are counted, their work leaves the queue, and the server goes on.

    What is asked for may be done before a client that left is told apart from one that has nothing more to send.
    """
    body = {"input": ["alpha beta gamma delta one two three"] * 2000}

    def leave(_: int) -> None:
        # One that is refused at once, as the queue is full, has nothing to wait for.
        with suppress(httpx.ReadTimeout):
            httpx.post(
                f"{server.url}/v1/embeddings", json=body, timeout=httpx.Timeout(30, read=0.02)
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(16)))
    dropped = re.compile(r'route="/v1/embeddings",status="499"} [1-9]')
    deadline = time.monotonic() + 20
    text = ""
    while time.monotonic() < deadline:
        text = httpx.get(f"{server.url}/metrics").text
        if dropped.search(text) and 'nestvec_queue_items{model="model"} 0.0' in text:
            break
        time.sleep(0.05)
    assert dropped.search(text)
    assert 'nestvec_queue_items{model="model"} 0.0' in text
    assert httpx.post(f"{server.url}/v1/embeddings", json={"input": "alpha"}).status_code == 200


def test_a_key_on_the_command_line_is_warned_of(tmp_path: Path) -> None:
    """A key that `ps` shows is warned of by its flag, with the way out, and not repeated; others are not."""
    arguments = ("serve", "--port", "0", "--model", str(tmp_path / "absent"))
    flags = ("--api-keys", KEY, "--admin-keys", f"{KEY}-2")
    for given, named in (((), []), (flags, ["--api-keys", "--admin-keys"])):
        done = subprocess.run(
            command(*arguments, *given),
            env=environment(offline=True, log_format="json", data_dir=tmp_path, api_keys="other"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        rows = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        warned = [row for row in rows if row["event"] == "key_on_command_line"]
        assert [row["flag"] for row in warned] == named
        assert all("NESTVEC_" in row["hint"] for row in warned)
        assert KEY not in done.stderr
