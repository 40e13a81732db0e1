"""Batches of OpenAI's API over HTTP, with a fake backend behind them."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.api.batch.batch_lines import _group_alike

from tests.api.applications import DAY_S, URL, Api, Clock, Jobs, MakeApi, line
from tests.support.served import ServedOptions


async def test_every_line_is_answered_as_the_endpoint_would(jobs: Jobs) -> None:
    """Each line is answered as the endpoint would answer it: good ones in one file, refused ones in the other."""
    texts = ["alpha beta", "red", "green " * 3, ""]
    good: dict[str, dict[str, Any]] = {
        **{f"t{n}": {"input": text} for n, text in enumerate(texts)},
        "cut": {"input": "alpha", "dimensions": 3},
        "base64": {"input": "alpha", "encoding_format": "base64"},
        "list": {"input": texts},
        "ids": {"input": [5, 6, 7]},
        "prompt": {"input": "alpha", "input_type": "query"},
    }
    bad: dict[str, dict[str, Any]] = {
        "long": {"input": "alpha " * 50},
        "zero": {"input": "alpha", "dimensions": 0},
        "none": {"input": None},
        "in list": {"input": ["alpha", 3]},
    }
    every = {**good, **bad}
    content = b"".join(line(name, body.pop("input"), **body) for name, body in _copies(every))
    headers = {"x-embed-token-vocab": "model"}
    jobs.api.app.state.tokens._mode = "model"
    batch = await jobs.create(content, metadata={"for": "a test"})
    assert batch["status"] == "validating"
    done = await jobs.until(batch["id"])
    assert done["status"] == "completed", done
    assert done["request_counts"] == {"total": len(every), "completed": len(good), "failed": 4}
    assert done["metadata"] == {"for": "a test"}
    outputs, errors = (
        await jobs.rows(done["output_file_id"]),
        await jobs.rows(done["error_file_id"]),
    )
    assert set(outputs) == set(good)
    assert set(errors) == set(bad)
    tokens = 0
    for name, body in every.items():
        plain = await jobs.client.post(URL, json=body, headers=headers)
        row = (outputs | errors)[name]
        assert row["error"] is None
        assert row["response"]["status_code"] == plain.status_code
        if plain.status_code == 200:
            np.testing.assert_allclose(
                _vectors(row["response"]["body"]), _vectors(plain.json()), atol=1e-6
            )
            assert row["response"]["body"]["usage"] == plain.json()["usage"]
            tokens += plain.json()["usage"]["total_tokens"]
        else:
            assert row["response"]["body"]["error"] == plain.json()["error"]
    assert done["usage"]["total_tokens"] == tokens
    for name in ("in_progress_at", "finalizing_at", "completed_at"):
        assert done[name] >= done["created_at"]


def _copies(every: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, dict(body)) for name, body in every.items()]


def _vectors(body: dict[str, Any]) -> np.ndarray[Any, Any]:
    rows = [item["embedding"] for item in body["data"]]
    return np.array(
        [np.frombuffer(base64.b64decode(r), "<f4") if isinstance(r, str) else r for r in rows]
    )


async def test_files_expire_on_request(jobs: Jobs) -> None:
    """A request may say when its input and its output files expire."""
    expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = (await jobs.upload(line("a"), **expiry)).json()
    assert file["expires_at"] == file["created_at"] + 3600
    batch = await jobs.create(
        line("a"), output_expires_after={"anchor": "created_at", "seconds": 7200}
    )
    done = await jobs.until(batch["id"])
    output = (await jobs.client.get(f"/v1/files/{done['output_file_id']}")).json()
    assert output["expires_at"] == output["created_at"] + 7200
    assert output["purpose"] == "batch_output"


async def test_a_bad_input_fails_its_batch_later(jobs: Jobs) -> None:
    """A wrong input file fails its batch with codes and lines; creating the batch succeeds, as clients rely on."""
    batch = await jobs.create(line("a") + b"{\n" + line("a"))
    done = await jobs.until(batch["id"])
    assert done["status"] == "failed"
    assert [(p["code"], p["line"]) for p in done["errors"]["data"]] == [
        ("invalid_json_line", 2),
        ("duplicate_custom_id", 3),
    ]
    assert (done["output_file_id"], done["error_file_id"]) == (None, None)
    assert done["failed_at"]


async def test_all_lines_refused_is_completed(jobs: Jobs) -> None:
    """A batch whose lines are all refused is completed, with an error file and no output file."""
    done = await jobs.until((await jobs.create(line("a", None)))["id"])
    assert (done["status"], done["output_file_id"]) == ("completed", None)
    assert set(await jobs.rows(done["error_file_id"])) == {"a"}


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"input_file_id": None}, 400, "input_file_id"),
        ({"input_file_id": "file-none"}, 404, "id"),
        ({"endpoint": "/v1/chat/completions"}, 400, "endpoint"),
        ({"completion_window": "1h"}, 400, "completion_window"),
        ({"metadata": {"k": 3}}, 400, "metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, 400, "metadata"),
        ({"output_expires_after": "x"}, 400, "output_expires_after"),
        ({"output_expires_after": {"anchor": "x"}}, 400, "output_expires_after.anchor"),
    ],
)
async def test_bad_batches(jobs: Jobs, change: dict[str, Any], status: int, param: str) -> None:
    """A wrong batch is refused by the field's name."""
    file = (await jobs.upload(line("a"))).json()
    body = {"input_file_id": file["id"], "endpoint": URL, "completion_window": "24h", **change}
    answer = await jobs.client.post("/v1/batches", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_metrics_tell_of_batches(jobs: Jobs) -> None:
    """Metrics count a batch's lines and chunks, and show what has not ended and what is stored."""
    backend = jobs.api.served.backend
    done = await jobs.until((await jobs.create(line("a") + line("b", None)))["id"])
    backend.gate.clear()
    waiting = await jobs.create(line("a", "beta"))
    expected = {
        'nestvec_batch_job_lines_total{outcome="completed"} 1.0',
        'nestvec_batch_job_lines_total{outcome="failed"} 1.0',
        "nestvec_batch_job_claims_total 2.0",
        "nestvec_batch_job_claims_lost_total 0.0",
        'nestvec_batch_jobs{status="in_progress"} 1.0',
        'nestvec_batch_jobs{status="validating"} 0.0',
    }
    async with asyncio.timeout(10):
        while not expected <= set((await jobs.client.get("/metrics")).text.splitlines()):
            await asyncio.sleep(0.1)
    text = (await jobs.client.get("/metrics")).text
    files = (await jobs.client.get("/v1/files")).json()["data"]
    assert f"nestvec_stored_files_bytes {sum(file['bytes'] for file in files)}.0" in text
    assert done["status"] == "completed"
    backend.gate.set()
    await jobs.until(waiting["id"])


async def test_only_batch_files_are_inputs(jobs: Jobs) -> None:
    """Files for other purposes can be stored, but a batch of them is refused."""
    file = (await jobs.upload(b"text", purpose="user_data", filename="a.txt")).json()
    assert file["expires_at"] is None
    body = {"input_file_id": file["id"], "endpoint": URL}
    assert (await jobs.client.post("/v1/batches", json=body)).status_code == 400


async def test_cancelling_keeps_what_is_done(jobs: Jobs) -> None:
    """A cancelled batch keeps its answers, and its other lines say that they never ran; it is cancelled once."""
    backend = jobs.api.served.backend
    backend.gate.clear()
    lines = b"".join(line(str(n), f"alpha {n}") for n in range(3000))
    batch = await jobs.create(lines)
    await jobs.until(batch["id"], lambda b: b["status"] == "in_progress")
    cancelled = await jobs.client.post(f"/v1/batches/{batch['id']}/cancel")
    assert cancelled.json()["status"] == "cancelling"
    backend.gate.set()
    done = await jobs.until(batch["id"])
    assert done["status"] == "cancelled"
    assert done["cancelling_at"] <= done["cancelled_at"]
    errors = await jobs.rows(done["error_file_id"])
    outputs = await jobs.rows(done["output_file_id"]) if done["output_file_id"] else {}
    assert len(errors) + len(outputs) == 3000
    assert {row["error"]["code"] for row in errors.values()} == {"batch_cancelled"}
    assert {row["response"] for row in errors.values()} == {None}
    again = await jobs.client.post(f"/v1/batches/{batch['id']}/cancel")
    assert (again.status_code, again.json()) == (200, done)


async def test_a_closed_window_ends_a_batch(jobs: Jobs) -> None:
    """A batch ends when its window closes, and the lines that never ran say so."""
    backend = jobs.api.served.backend
    backend.gate.clear()
    batch = await jobs.create(b"".join(line(str(n), f"alpha {n}") for n in range(3000)))
    await jobs.until(batch["id"], lambda b: b["status"] == "in_progress")
    jobs.clock.ahead_s = DAY_S + 1
    backend.gate.set()
    done = await jobs.until(batch["id"])
    assert done["status"] == "expired"
    errors = await jobs.rows(done["error_file_id"])
    assert {row["error"]["code"] for row in errors.values()} == {"batch_expired"}


async def test_a_restart_goes_on(jobs: Jobs) -> None:
    """After a restart a batch goes on: lines that were written are not run again, and each comes once."""
    backend = jobs.api.served.backend
    batch = await jobs.create(b"".join(line(str(n), f"alpha {n}") for n in range(3000)))
    await jobs.until(batch["id"], lambda b: b["request_counts"]["completed"] > 0)
    await jobs.runner.close()
    # What a runner leaves that dies while it writes.
    (jobs.folder / "parts" / batch["id"] / "9-dead-0.output").write_bytes(b'{"custom_id": "torn')
    (jobs.folder / "drafts" / ".draft-dead").write_bytes(b"torn")
    before = sum(map(len, backend.batches))
    jobs.open()
    committed = (await jobs.client.get(f"/v1/batches/{batch['id']}")).json()
    done = await jobs.until(batch["id"])
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 3000, "completed": 3000, "failed": 0}
    assert set(await jobs.rows(done["output_file_id"])) == {str(n) for n in range(3000)}
    again = sum(map(len, backend.batches)) - before
    assert again <= 3000 - committed["request_counts"]["completed"]
    assert list((jobs.folder / "parts").iterdir()) == []
    assert list((jobs.folder / "drafts").iterdir()) == []


async def test_a_full_queue_is_waited_for(make_api: MakeApi, tmp_path: Path) -> None:
    """A batch waits while the queue is full, until all its lines are answered."""
    api = make_api(ServedOptions(max_queue_tokens=200))
    jobs = Jobs(api, tmp_path / "data", Clock())
    jobs.open()
    try:
        done = await jobs.until(
            (await jobs.create(b"".join(line(str(n), f"alpha {n}") for n in range(300))))["id"]
        )
        assert done["request_counts"]["completed"] == 300
    finally:
        await jobs.runner.close()


async def test_keys_do_not_see_each_others_objects(make_api: MakeApi, tmp_path: Path) -> None:
    """For a key, files and batches of another key do not exist."""
    api = make_api(api_keys="one,two")
    jobs = Jobs(api, tmp_path / "data", Clock())
    jobs.open()
    try:
        api.client.headers["authorization"] = "Bearer one"
        batch = await jobs.create(line("a"))
        await jobs.until(batch["id"])
        api.client.headers["authorization"] = "Bearer two"
        for path in (f"/v1/batches/{batch['id']}", f"/v1/files/{batch['input_file_id']}"):
            assert (await api.client.get(path)).status_code == 404
        assert (await api.client.get("/v1/batches")).json()["data"] == []
        assert (await api.client.get("/v1/files")).json()["data"] == []
        del api.client.headers["authorization"]
        assert (await api.client.get("/v1/files")).status_code == 401
    finally:
        await jobs.runner.close()


async def test_without_a_data_folder_the_rest_works(api: Api) -> None:
    """Without a data folder files answer with an error, and embeddings work."""
    answer = await api.client.get("/v1/files")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_error")
    assert (await api.embed({"input": "alpha"})).status_code == 200


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=101", "after=batch_none"])
async def test_bad_pages(jobs: Jobs, query: str) -> None:
    """Wrong limits are refused, and so is an unknown `after`, which would make a client page forever."""
    answer = await jobs.client.get(f"/v1/batches?{query}")
    assert answer.status_code == (404 if "after" in query else 400)


def test_lines_are_grouped_whatever_is_in_them() -> None:
    """Bodies that agree in all but their text are one group; one that is too deep to be compared stands alone."""
    deep: list[object] = []
    for _ in range(400):
        deep = [deep]
    bodies: list[dict[str, Any]] = [
        {"input": "a", "dimensions": 4, "user": "x"},
        {"dimensions": 4, "input": "b"},
        {"input": "c", "junk": deep},
        {"input": "d", "dimensions": 8},
        {"input": ["e"], "dimensions": 4},
    ]
    assert sorted(_group_alike(bodies)) == [[0, 1], [2], [3], [4]]
