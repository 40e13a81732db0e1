"""A server killed at random points of a batch: after the last restart every line is there once, and right."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server import running_server
from tests.support.tiny import WORDS, write_tiny_bert

pytestmark = pytest.mark.process
KILLS = int(os.environ.get("CHAOS_KILLS", "5"))  # 50 by `make test-chaos`
LINES = 20_000
CHECKED = 200


def text_of(number: int) -> str:
    """A unique text of some words."""
    chooser = random.Random(number)
    return " ".join([*chooser.choices(WORDS, k=chooser.randrange(1, 12)), str(number)])


def wait_for_end(client: httpx.Client, batch_id: str) -> Any:
    """Wait until a batch has completed."""
    until = time.monotonic() + 120
    while (batch := client.get(f"/v1/batches/{batch_id}").json())["status"] != "completed":
        assert batch["status"] in ("validating", "in_progress", "finalizing"), batch
        assert time.monotonic() < until, batch
        time.sleep(0.05)
    return batch


def test_nothing_is_lost_doubled_or_wrong(tmp_path: Path) -> None:
    """However often the server is killed, each start goes on from what was committed."""
    model = write_tiny_bert(tmp_path / "model")
    settings = {
        "model": model,
        "cache_dir": tmp_path / "cache",
        "data_dir": tmp_path / "data",
        "truncate": "end",
    }
    content = "\n".join(
        json.dumps(
            {
                "custom_id": f"id{n}",
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"input": text_of(n)},
            }
        )
        for n in range(LINES)
    )
    chooser = random.Random(7)
    batch_id, output, batch = "", "", {}
    checked = chooser.sample(range(LINES), CHECKED)
    plain: list[list[float]] = []
    for kills in range(KILLS + 1):
        with (
            running_server(tmp_path, **settings) as server,
            httpx.Client(base_url=server.url, timeout=60) as client,
        ):
            if not batch_id:
                form = {"file": ("in.jsonl", content.encode())}
                file = client.post("/v1/files", data={"purpose": "batch"}, files=form).json()
                order = {"input_file_id": file["id"], "endpoint": "/v1/embeddings"}
                batch_id = client.post("/v1/batches", json=order).json()["id"]
            if kills < KILLS:
                # Anywhere from the check of the input to the naming of the output.
                time.sleep(chooser.uniform(0, 3.0 / KILLS))
                os.kill(server.process.pid, signal.SIGKILL)
                server.process.wait()
                continue
            batch = wait_for_end(client, batch_id)
            output = client.get(f"/v1/files/{batch['output_file_id']}/content").text
            answer = client.post(
                "/v1/embeddings", json={"input": [text_of(n) for n in checked]}
            ).json()
            plain = [item["embedding"] for item in answer["data"]]
    rows = [json.loads(line) for line in output.splitlines()]
    counts = list(batch["request_counts"].values())
    assert counts == [LINES, LINES, 0]
    assert batch["error_file_id"] is None
    by_id = {row["custom_id"]: row["response"]["body"]["data"][0]["embedding"] for row in rows}
    assert len(rows) == len(by_id) == LINES
    assert set(by_id) == {f"id{n}" for n in range(LINES)}
    for n, vector in zip(checked, plain, strict=True):
        assert by_id[f"id{n}"] == pytest.approx(vector, abs=1e-5)
