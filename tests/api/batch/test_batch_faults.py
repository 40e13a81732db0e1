"""What goes wrong with a batch harms a line of it, never the rest of it, and never another key's."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall
from nestvec.errors import (
    BackendError,
    DeadlineError,
    DegenerateVectorError,
    FormatError,
    NestvecError,
    QuarantinedError,
)
from nestvec.jobs.store import JobStore
from nestvec.keys.records import KeyFile, KeyLimits

from tests.api.applications import DAY_S, URL, Clock, Jobs, MakeApi, line
from tests.support.served import ServedOptions

MAX_STORED_BYTES = 100_000
ENDED = ("completed", "failed", "expired", "cancelled")


@pytest.fixture
async def two_keys(make_api: MakeApi, tmp_path: Path) -> AsyncIterator[Jobs]:
    """Batches of a server with two keys; a test chooses whose request it sends."""
    api = make_api(ServedOptions(max_queue_tokens=10**9), api_keys="one,two")
    api.client.headers["authorization"] = "Bearer one"
    jobs = Jobs(api, tmp_path / "data", Clock())
    jobs.model_wait_s = 0.6
    jobs.open()
    yield jobs
    api.served.backend.gate.set()
    await jobs.runner.close()


def add_broken_model(jobs: Jobs) -> None:
    """Serve a model that cannot be loaded."""

    def fail() -> ServedModel:
        raise FormatError("the weights are cut short")

    models = jobs.api.served.service.models
    models.add(ModelSlot(names=("broken",), open=fail))


async def test_a_broken_model_stops_nobody_elses_batches(two_keys: Jobs) -> None:
    """Batches on a model that cannot be loaded neither hold up another key's nor wait for ever themselves."""
    jobs = two_keys
    add_broken_model(jobs)
    stuck = [await jobs.create(line("a", model="broken")) for _ in range(4)]
    jobs.client.headers["authorization"] = "Bearer two"
    good = await jobs.create(line("a"))
    async with asyncio.timeout(10):
        assert (await jobs.until(good["id"]))["status"] == "completed"
    jobs.client.headers["authorization"] = "Bearer one"
    async with asyncio.timeout(10):
        for batch in stuck:
            done = await jobs.until(batch["id"])
            assert (done["status"], done["request_counts"]["failed"]) == ("completed", 1)
            rows = await jobs.rows(done["error_file_id"])
            assert rows["a"]["response"]["body"]["error"]["code"] == "model_unavailable"


async def test_a_batch_on_a_broken_model_can_be_cancelled(jobs: Jobs) -> None:
    """Cancelling takes effect at once while a batch waits for its model."""
    add_broken_model(jobs)
    batch = await jobs.create(line("a", model="broken"))
    await asyncio.sleep(0.3)
    started_s = time.monotonic()
    await jobs.client.post(f"/v1/batches/{batch['id']}/cancel")
    async with asyncio.timeout(10):
        assert (await jobs.until(batch["id"]))["status"] == "cancelled"
    assert time.monotonic() - started_s < 2.5


@pytest.mark.parametrize("why", ["cancelled", "expired"])
async def test_an_end_takes_effect_while_a_chunk_runs(jobs: Jobs, why: str) -> None:
    """A batch whose lines the engine has and does not answer ends within two seconds."""
    backend = jobs.api.served.backend
    backend.gate.clear()
    batch = await jobs.create(line("a"))
    await asyncio.to_thread(backend.started.acquire)
    started_s = time.monotonic()
    if why == "cancelled":
        await jobs.client.post(f"/v1/batches/{batch['id']}/cancel")
    else:
        jobs.clock.ahead_s = DAY_S + 1
    async with asyncio.timeout(8):
        done = await jobs.until(batch["id"])
    assert time.monotonic() - started_s < 2.5
    assert done["status"] == why
    rows = await jobs.rows(done["error_file_id"])
    assert rows["a"]["error"]["code"] == f"batch_{why}"


@pytest.mark.parametrize(
    "error",
    [
        QuarantinedError("not again"),
        BackendError("it failed"),
        DegenerateVectorError("NaN"),
        DeadlineError("too late", retry_after_s=1),
        RuntimeError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_line_fails_alone_whatever_fails_it(jobs: Jobs, error: Exception) -> None:
    """One line that fails, for whatever reason, goes to the error file; all others are answered and delivered."""
    embed = jobs.api.served.service.embed

    async def fail(call: EmbedCall) -> EmbedResult:
        if "red" in call.inputs:
            raise error
        return await embed(call)

    jobs.api.served.service.embed = fail  # type: ignore[method-assign] # one text fails
    lines = [line(str(n), "red" if n == 1400 else f"alpha {n}") for n in range(1500)]
    done = await jobs.until((await jobs.create(b"".join(lines)))["id"])
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 1500, "completed": 1499, "failed": 1}
    assert len(await jobs.rows(done["output_file_id"])) == 1499
    (row,) = (await jobs.rows(done["error_file_id"])).values()
    code = error.code if isinstance(error, NestvecError) else "internal_error"
    assert (row["custom_id"], row["response"]["body"]["error"]["code"]) == ("1400", code)
    assert "a bug" not in str(row)


async def test_a_revoked_key_keeps_what_was_answered(make_api: MakeApi, tmp_path: Path) -> None:
    """The lines of a key that is revoked meanwhile are refused one by one, and what was answered stays."""
    path = tmp_path / "keys.json"
    file = KeyFile.read(path)
    record, key = file.add("someone", KeyLimits())
    file.write()
    api = make_api(ServedOptions(max_queue_tokens=10**9), keys_file=path)
    api.client.headers["authorization"] = f"Bearer {key}"
    jobs = Jobs(api, tmp_path / "data", Clock())
    jobs.open()
    try:
        api.served.backend.gate.clear()
        batch = await jobs.create(b"".join(line(str(n), f"alpha {n}") for n in range(5000)))
        await asyncio.to_thread(api.served.backend.started.acquire)
        file.revoke(record.id)
        file.write()
        api.app.state.keys.reload()
        api.served.backend.gate.set()

        def find(store: JobStore) -> Any:
            return store.batch(batch["id"])

        async with asyncio.timeout(20):
            while (done := await jobs.runner.call(find)).status not in ENDED:
                await asyncio.sleep(0.02)
        assert done.status == "completed"
        assert done.completed + done.failed == 5000
        assert done.failed > 1000
        content = (jobs.folder / "files" / done.error_file_id).read_text()
        assert content.count("invalid_api_key") == done.failed
    finally:
        api.served.backend.gate.set()
        await jobs.runner.close()


async def test_keys_take_turns(two_keys: Jobs) -> None:
    """One line of a key is answered long before the many batches that another key sent earlier."""
    jobs, backend = two_keys, two_keys.api.served.backend
    backend.gate.clear()
    content = b"".join(line(str(n), f"alpha {n}") for n in range(3000))
    file = (await jobs.upload(content)).json()
    order = {"input_file_id": file["id"], "endpoint": URL}
    many = [(await jobs.client.post("/v1/batches", json=order)).json()["id"] for _ in range(8)]
    jobs.client.headers["authorization"] = "Bearer two"
    few = await jobs.create(line("a"))
    await asyncio.sleep(0.5)
    backend.gate.set()
    assert (await jobs.until(few["id"]))["status"] == "completed"
    jobs.client.headers["authorization"] = "Bearer one"
    counts = [
        (await jobs.client.get(f"/v1/batches/{one}")).json()["request_counts"]["completed"]
        for one in many
    ]
    assert sum(counts) <= 8 * 1024


async def test_a_key_has_so_many_unfinished_batches(make_api: MakeApi, tmp_path: Path) -> None:
    """A key whose batches have not ended may not add more than the bound, and is told so."""
    api = make_api(max_unfinished_batches=2)
    jobs = Jobs(api, tmp_path / "data", Clock())
    jobs.open()
    try:
        api.served.backend.gate.clear()
        file = (await jobs.upload(line("a"))).json()
        order = {"input_file_id": file["id"], "endpoint": URL}
        answers = [await jobs.client.post("/v1/batches", json=order) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 413]
        error = answers[2].json()["error"]
        assert (error["code"], error["param"]) == ("quota_exceeded", "input_file_id")
        assert "max_unfinished_batches" in error["message"]
        api.served.backend.gate.set()
        await jobs.until(answers[0].json()["id"])
        assert (await jobs.client.post("/v1/batches", json=order)).status_code == 200
    finally:
        api.served.backend.gate.set()
        await jobs.runner.close()


async def test_answers_stay_within_the_bound_on_stored_bytes(
    make_api: MakeApi, tmp_path: Path
) -> None:
    """What a key stores stays within its bound, however many batches it makes of one file."""
    api = make_api(max_stored_bytes=MAX_STORED_BYTES)
    jobs = Jobs(api, tmp_path / "data", Clock())
    jobs.open()
    try:
        content = b"".join(line(str(n), f"alpha {n}") for n in range(60))
        file = (await jobs.upload(content)).json()
        order = {"input_file_id": file["id"], "endpoint": URL}
        statuses, problems = [], []
        for _ in range(6):
            answer = await jobs.client.post("/v1/batches", json=order)
            assert answer.status_code in (200, 413)
            if answer.status_code == 200:
                done = await jobs.until(answer.json()["id"])
                statuses.append(done["status"])
                problems += [problem["code"] for problem in (done["errors"] or {}).get("data", [])]
        stored = sum(one["bytes"] for one in (await jobs.client.get("/v1/files")).json()["data"])
        on_disk = sum(path.stat().st_size for path in (jobs.folder / "files").iterdir())
        assert stored <= MAX_STORED_BYTES
        assert on_disk == stored
        assert "completed" in statuses
        assert set(problems) == {"quota_exceeded"}
    finally:
        await jobs.runner.close()


async def test_uploads_are_refused_before_they_are_written(
    make_api: MakeApi, tmp_path: Path
) -> None:
    """An upload for which a key has no room is refused by its length, or cut off where it comes without one."""
    api = make_api(max_stored_bytes=MAX_STORED_BYTES)
    jobs = Jobs(api, tmp_path / "data", Clock())
    jobs.open()
    try:
        assert (await jobs.upload(b"x" * 60_000)).status_code == 200
        refused = await jobs.upload(b"x" * 60_000)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "quota_exceeded")
        assert "max_stored_bytes" in refused.json()["error"]["message"]
        form = (
            b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        )
        written = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal written
            yield form
            for _ in range(1000):
                yield b"x" * 10_000
                sizes = [p.stat().st_size for p in (jobs.folder).rglob("upload-*")]
                written = max(written, sum(sizes))

        headers = {"content-type": "multipart/form-data; boundary=b"}
        cut = await jobs.client.post("/v1/files", content=endless(), headers=headers)
        assert (cut.status_code, cut.json()["error"]["code"]) == (413, "quota_exceeded")
        assert written <= MAX_STORED_BYTES
        assert (await jobs.upload(b"x" * 30_000)).status_code == 200
    finally:
        await jobs.runner.close()


async def test_a_full_database_is_a_store_error(jobs: Jobs) -> None:
    """Where the disk has no room for a batch, the answer says so, and the server goes on."""
    file = (await jobs.upload(line("a"))).json()

    def bound(store: JobStore, pages: str) -> None:
        with store._engine.connect() as connection:
            connection.execute(sa.text(f"PRAGMA max_page_count={pages}"))

    order = {
        "input_file_id": file["id"],
        "endpoint": URL,
        "metadata": {str(n): "v" * 500 for n in range(16)},
    }
    await jobs.runner.call(lambda store: bound(store, "1"))  # as many as there are
    answer = await jobs.client.post("/v1/batches", json=order)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_error")
    await jobs.runner.call(lambda store: bound(store, "1000000"))
    done = await jobs.until((await jobs.client.post("/v1/batches", json=order)).json()["id"])
    assert done["status"] == "completed"
