"""A server killed at random points of a batch: after the last restart every line is there once, and right."""

import json
import os
import random
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.server import running_server
from tests.tiny import WORDS, write_tiny_bert

pytestmark = pytest.mark.process
KILLS = int(os.environ.get("NESTVEC_TEST_KILLS", "5"))  # 50 by `make test-chaos`
LINES = 20_000
CHECKED = 200


def text_of(number: int) -> str:
    """Unique, of some words."""
    chooser = random.Random(number)
    return " ".join([*chooser.choices(WORDS, k=chooser.randrange(1, 12)), str(number)])


def test_nothing_is_lost_doubled_or_wrong(tmp_path: Path) -> None:
    """Kill -9 again and again; each start goes on from what was committed."""
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
    batch_id, kills, counts = "", 0, [0]
    while True:
        with running_server(tmp_path, **settings) as server:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                if not batch_id:
                    form = {"file": ("in.jsonl", content.encode())}
                    file = client.post("/v1/files", data={"purpose": "batch"}, files=form).json()
                    asked = {"input_file_id": file["id"], "endpoint": "/v1/embeddings"}
                    batch_id = client.post("/v1/batches", json=asked).json()["id"]
                if kills < KILLS:
                    # Anywhere from the check of the input to the naming of the output.
                    time.sleep(chooser.uniform(0, 3.0 / KILLS))
                    os.kill(server.process.pid, signal.SIGKILL)
                    server.process.wait()
                    kills += 1
                    continue
                until = time.monotonic() + 120
                while (batch := client.get(f"/v1/batches/{batch_id}").json())["status"] not in (
                    "completed",
                    "failed",
                ):
                    assert time.monotonic() < until, batch
                    time.sleep(0.05)
                assert batch["status"] == "completed", batch
                counts = list(batch["request_counts"].values())
                output = client.get(f"/v1/files/{batch['output_file_id']}/content").text
                rows = [json.loads(line) for line in output.splitlines()]
                some = chooser.sample(range(LINES), CHECKED)
                plain = client.post(
                    "/v1/embeddings", json={"input": [text_of(n) for n in some]}
                ).json()
        break
    assert counts == [LINES, LINES, 0]
    assert batch["error_file_id"] is None
    by_id = {row["custom_id"]: row["response"]["body"]["data"][0]["embedding"] for row in rows}
    assert len(rows) == len(by_id) == LINES
    assert set(by_id) == {f"id{n}" for n in range(LINES)}
    for n, item in zip(some, plain["data"], strict=True):
        assert by_id[f"id{n}"] == pytest.approx(item["embedding"], abs=1e-5)
