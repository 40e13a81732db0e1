"""Three servers on one PostgreSQL and one object store: one is killed, one stopped, the database crashes meanwhile."""

import json
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.chaos.test_killed_batches import text_of
from tests.support.server import starting_server, wait_until_ready
from tests.support.services import postgres_server, s3_server
from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process
IS_LONG = int(os.environ.get("CHAOS_KILLS", "5")) > 5  # as `make test-chaos` has it
LINES = 20_000 if IS_LONG else 5_000
STOPPED_S = 60.0 if IS_LONG else 2.5
LEASE_S = 30.0 if IS_LONG else 1.0
CHECKED = 100


def line(number: int) -> str:
    """A line of the batch's input."""
    row = {"custom_id": f"id{number}", "method": "POST", "url": "/v1/embeddings"}
    return json.dumps({**row, "body": {"input": text_of(number)}})


def test_each_line_is_answered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens to two of the servers and to the database, each line is answered once, as one server would."""
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server())
        s3 = stack.enter_context(s3_server(tmp_path / "s3"))
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        settings = {
            "model": write_tiny_bert(tmp_path / "model"),
            "cache_dir": tmp_path / "cache",
            "truncate": "end",
            "database_url": postgres.url,
            "files_url": s3.url,
            "batch_lease_s": LEASE_S,
        }
        servers = []
        for name in "abc":
            folder = tmp_path / name
            folder.mkdir()
            servers.append(stack.enter_context(starting_server(folder, **settings)))
        for server in servers:
            wait_until_ready(server)
        alive, killed, stopped = servers
        sender = stack.enter_context(httpx.Client(base_url=killed.url, timeout=60))
        client = stack.enter_context(httpx.Client(base_url=alive.url, timeout=60))
        content = "\n".join(map(line, range(LINES)))
        form = {"file": ("in.jsonl", content.encode())}
        file = sender.post("/v1/files", data={"purpose": "batch"}, files=form).json()
        order = {"input_file_id": file["id"], "endpoint": "/v1/embeddings"}
        batch_id = sender.post("/v1/batches", json=order).json()["id"]
        until_s = time.monotonic() + 180
        while not client.get(f"/v1/batches/{batch_id}").json()["request_counts"]["completed"]:
            assert time.monotonic() < until_s
            time.sleep(0.02)
        os.kill(stopped.process.pid, signal.SIGSTOP)
        os.kill(killed.process.pid, signal.SIGKILL)
        stopped_s = time.monotonic()
        before = client.get(f"/v1/batches/{batch_id}").json()
        assert before["status"] == "in_progress"
        postgres.stop(signal.SIGQUIT)
        postgres.start()
        while (batch := _batch(client, batch_id)).get("status") != "completed":
            assert batch.get("status") in (None, "in_progress", "finalizing"), batch
            assert time.monotonic() < until_s, batch
            time.sleep(0.05)
        time.sleep(max(0.0, stopped_s + STOPPED_S - time.monotonic()))
        # It goes on with what it held, which has long been done by another.
        os.kill(stopped.process.pid, signal.SIGCONT)
        time.sleep(0.5)
        # Any server delivers what the others have answered.
        output = httpx.get(
            f"{stopped.url}/v1/files/{batch['output_file_id']}/content", timeout=60
        ).text
        checked = range(0, LINES, LINES // CHECKED)
        texts = [text_of(n) for n in checked]
        plain = client.post("/v1/embeddings", json={"input": texts}).json()["data"]
    rows = [json.loads(row) for row in output.splitlines()]
    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    assert batch["error_file_id"] is None
    assert [row["custom_id"] for row in rows] == [f"id{n}" for n in range(LINES)]
    for n, item in zip(checked, plain, strict=True):
        vector = rows[n]["response"]["body"]["data"][0]["embedding"]
        assert vector == pytest.approx(item["embedding"], abs=1e-5)


def _batch(client: httpx.Client, batch_id: str) -> dict[str, object]:
    """The batch; while the database is away, nothing."""
    answer = client.get(f"/v1/batches/{batch_id}")
    assert answer.status_code in (200, 503), answer.text
    batch: dict[str, object] = answer.json()
    return batch
