"""The runner: whatever fails fails a line, several runners share a store, and none of them is waited for."""

import asyncio
import json
import tarfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from nestvec.errors import (
    InternalError,
    ModelUnavailableError,
    NestvecError,
    StoreError,
)
from nestvec.jobs.chunk_runner import LAST_ATTEMPTS
from nestvec.jobs.database import begin_writing, open_database
from nestvec.jobs.runner import CHUNKS_AT_ONCE, JobRunner
from nestvec.jobs.store import JobStore, new_id
from nestvec.jobs.tables import chunks, schema
from nestvec.jobs.types import BatchJob, JobLimits, LineResult, Purpose, Status, StoredFile
from nestvec.observability.job_metrics import JobMetrics
from prometheus_client import CollectorRegistry

from tests.support.job_store import add_file
from tests.support.services import Service, postgres_server, s3_server

DAY_S = 86_400
FAILS = "fails"


@dataclass
class Handler:
    """Answers each line with its text; a test says what goes wrong."""

    delay_s: float = 0.0
    broken_models: set[str] = field(default_factory=set)
    crashes_on: str = ""
    answered: Counter[str] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    passes_gate: str = ""

    def __post_init__(self) -> None:
        """Let everything pass."""
        self.gate.set()

    async def answer(
        self, bodies: Sequence[Mapping[str, Any]], *, owner: str
    ) -> Sequence[LineResult]:
        """Answer bodies."""
        self.sizes.append(len(bodies))
        if owner != self.passes_gate:
            await self.gate.wait()
        await asyncio.sleep(self.delay_s)
        if any(body["input"] == self.crashes_on for body in bodies):
            raise RuntimeError("as a bug would")
        self.answered.update(str(body["input"]) for body in bodies)
        return [
            self.refuse(InternalError("it failed"))
            if body["input"] == FAILS
            else LineResult(200, json.dumps(body["input"]).encode(), 1)
            for body in bodies
        ]

    def refuse(self, error: NestvecError) -> LineResult:
        """Refuse a line."""
        return LineResult(500, json.dumps({"error": {"code": error.code}}).encode())

    def is_loaded(self, model: str | None) -> bool:
        """Whether the model is not a broken one."""
        return model not in self.broken_models

    async def load(self, model: str | None) -> None:
        """Fail for a broken model."""
        if model in self.broken_models:
            raise ModelUnavailableError("broken", retry_after_s=30)

    def dimensions(self, model: str | None) -> int:
        """A small vector."""
        del model
        return 4


@dataclass
class Place:
    """A store that several runners share, and what a test does with it."""

    folder: Path
    urls: dict[str, Any]
    clock: Any = time.time
    limits: JobLimits = field(default_factory=JobLimits)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def has_ended(self, status: str) -> float | None:
        """Return how many batches the last runner has counted as ended with a status."""
        return self.registry.get_sample_value("nestvec_batch_jobs_ended_total", {"status": status})

    def store(self, name: str = "a", lease_s: float = 30.0) -> JobStore:
        """Open the store as one server does."""
        return JobStore(self.folder / name, self.clock, lease_s=lease_s, **self.urls)

    @asynccontextmanager
    async def runner(
        self, handler: Handler, name: str = "a", **options: Any
    ) -> AsyncIterator[JobRunner]:
        """Run a runner for as long as the block."""
        store = self.store(name, options.pop("lease_s", 30.0))
        self.registry = CollectorRegistry()
        metrics = JobMetrics(self.registry)
        runner = JobRunner(store, handler, self.limits, observer=metrics, **options)
        runner.start()
        try:
            yield runner
        finally:
            await runner.close()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Service]:
    """A PostgreSQL server."""
    with postgres_server() as service:
        yield service


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An S3 store."""
    with s3_server(tmp_path_factory.mktemp("s3")) as service:
        yield service


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A store in a folder."""
    return Place(tmp_path, {})


@pytest.fixture
def shared_place(
    tmp_path: Path, postgres: Service, s3: Service, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """A store in PostgreSQL and S3."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    engine = open_database(postgres.url)
    with begin_writing(engine) as connection:
        for table in schema.sorted_tables:
            connection.execute(table.delete())
    engine.dispose()
    return Place(tmp_path, {"database_url": postgres.url, "files_url": f"{s3.url}/{tmp_path.name}"})


def line(number: int, text: str = "", model: str = "good") -> bytes:
    """A line of an input file."""
    body = {"model": model, "input": text or f"text {number}"}
    row = {"custom_id": f"id{number}", "method": "POST", "url": "/v1/embeddings", "body": body}
    return json.dumps(row).encode() + b"\n"


async def create(
    runner: JobRunner, content: bytes, owner: str = "me", expires_in_s: int = DAY_S
) -> str:
    """Store a file and a batch of it; gives the batch's id."""

    def make(store: JobStore) -> str:
        now = store.now()
        draft = store.upload_path()
        draft.write_bytes(content)
        file = StoredFile(
            new_id("file-"), owner, Purpose.BATCH, "in.jsonl", len(content), now, now + DAY_S
        )
        add_file(store, file, draft, 10**12)
        batch = BatchJob(
            id=new_id("batch_"),
            owner=owner,
            endpoint="/v1/embeddings",
            input_file_id=file.id,
            completion_window="24h",
            status=Status.VALIDATING,
            created_s=now,
            expires_s=now + expires_in_s,
        )
        store.add_batch(batch)
        return batch.id

    batch_id = await runner.call(make)
    runner.wake()
    return batch_id


async def ended(runner: JobRunner, batch_id: str, timeout_s: float = 30) -> BatchJob:
    """Wait for a batch's end."""
    async with asyncio.timeout(timeout_s):
        while True:
            batch = await runner.call(lambda store: store.batch(batch_id))
            if batch.status.is_final:
                return batch
            await asyncio.sleep(0.01)


async def rows(runner: JobRunner, file_id: str | None) -> list[dict[str, Any]]:
    """The rows of an output file."""
    if file_id is None:
        return []
    content = await runner.call_contents(
        lambda store: b"".join(store.objects.read(store.content_name(file_id)))
    )
    return [json.loads(row) for row in content.splitlines()]


async def outcome(runner: JobRunner, batch: BatchJob) -> tuple[list[str], dict[str, Any]]:
    """Custom ids of the answers in their order, and codes of the refusals by custom id."""
    answers = await rows(runner, batch.output_file_id)
    refusals = await rows(runner, batch.error_file_id)
    codes = {
        row["custom_id"]: (row["error"] or row["response"]["body"]["error"])["code"]
        for row in refusals
    }
    assert len(codes) == len(refusals)
    return [row["custom_id"] for row in answers], codes


async def test_answers_come_in_the_order_of_the_lines(place: Place) -> None:
    """A batch of several chunks, with a BOM and blank lines, is answered line by line in order."""
    lines = [line(n, FAILS if n == 1500 else "") for n in range(2500)]
    content = b"\xef\xbb\xbf\r\n" + b"\n \n".join(lines)
    async with place.runner(Handler()) as runner:
        batch = await ended(runner, await create(runner, content))
        answers, refusals = await outcome(runner, batch)
    assert answers == [f"id{n}" for n in range(2500) if n != 1500]
    assert refusals == {"id1500": "internal_error"}
    assert (batch.status, batch.total, batch.completed, batch.failed) == (
        Status.COMPLETED,
        2500,
        2499,
        1,
    )
    assert batch.input_tokens == 2499
    assert list((place.folder / "a" / "parts").iterdir()) == []


async def test_a_line_that_always_breaks_is_given_up(place: Place) -> None:
    """A line on which even the server's own code breaks is found, and refused alone; its neighbours are answered."""
    handler = Handler(crashes_on="text 700")
    async with place.runner(handler) as runner:
        batch = await ended(runner, await create(runner, b"".join(map(line, range(1100)))))
        answers, refusals = await outcome(runner, batch)
    assert answers == [f"id{n}" for n in range(1100) if n != 700]
    assert refusals == {"id700": "internal_error"}
    assert set(handler.answered.values()) == {1}
    assert handler.sizes.count(1) <= 32 + LAST_ATTEMPTS


async def test_what_kills_the_server_is_given_up(place: Place) -> None:
    """A line that ends the server each time costs some starts; neighbours that ran beside it are not blamed."""
    deaths, batch_id = 0, ""
    answers: list[str] = []
    refusals: dict[str, Any] = {}
    while deaths < 40:
        handler = Handler()
        died = asyncio.Event()

        async def answer(
            bodies: Sequence[Mapping[str, Any]], *, owner: str, died: asyncio.Event = died
        ) -> Sequence[LineResult]:
            if any(body["input"] == "text 40" for body in bodies):
                died.set()
                await asyncio.Event().wait()
            return await Handler().answer(bodies, owner=owner)

        handler.answer = answer  # type: ignore[method-assign] # as a server that dies
        runner = JobRunner(
            place.store(), handler, place.limits, observer=JobMetrics(CollectorRegistry())
        )
        runner.start()
        batch_id = batch_id or await create(runner, b"".join(map(line, range(64))))
        ending = asyncio.create_task(ended(runner, batch_id))
        dying = asyncio.create_task(died.wait())
        await asyncio.wait([ending, dying], return_when=asyncio.FIRST_COMPLETED, timeout=20)
        dying.cancel()
        if ending.done():
            batch = await ending
            answers, refusals = await outcome(runner, batch)
            await runner.close()
            break
        ending.cancel()
        deaths += 1
        # The death of a process: what it held stays held.
        runner._access.store.release_all = _nothing_held  # type: ignore[method-assign] # a dead one gives nothing back
        await runner.close()
    assert answers == [f"id{n}" for n in range(64) if n != 40]
    assert refusals == {"id40": "internal_error"}
    assert deaths <= 2 * LAST_ATTEMPTS


async def test_a_broken_model_holds_nobody_up(place: Place) -> None:
    """Batches on a model that cannot be loaded wait beside others, then fail line by line, or are cancelled at once."""
    handler = Handler(broken_models={"broken"})
    async with place.runner(handler, model_wait_s=1.5) as runner:
        stuck = [
            await create(runner, b"".join(line(n, model="broken") for n in range(3)), owner="other")
            for _ in range(6)
        ]
        good = await ended(runner, await create(runner, line(0)), timeout_s=1.4)
        assert good.status is Status.COMPLETED
        await runner.call(lambda store: store.cancel_batch(stuck[5], "other"))
        assert (await ended(runner, stuck[5], timeout_s=2)).status is Status.CANCELLED
        for batch_id in stuck[:5]:
            batch = await ended(runner, batch_id, timeout_s=8)
            _, refusals = await outcome(runner, batch)
            assert (batch.status, batch.failed) == (Status.COMPLETED, 3)
            assert set(refusals.values()) == {"model_unavailable"}


async def test_a_model_that_comes_back_is_used(place: Place) -> None:
    """Lines for a model that can be loaded after some tries are answered."""
    handler = Handler(broken_models={"slow"})
    async with place.runner(handler, model_wait_s=4) as runner:
        batch_id = await create(runner, line(0, model="slow"))
        await asyncio.sleep(0.3)
        handler.broken_models.clear()
        assert (await ended(runner, batch_id)).completed == 1


@pytest.mark.parametrize("why", ["cancelled", "expired"])
async def test_the_end_comes_within_two_seconds(place: Place, why: str) -> None:
    """A batch whose chunks run, or wait, ends at once when it is cancelled or expires."""
    handler = Handler()
    async with place.runner(handler) as runner:
        done_id = await create(runner, b"".join(map(line, range(10))))
        assert (await ended(runner, done_id)).completed == 10
        handler.gate.clear()
        batch_id = await create(
            runner,
            b"".join(map(line, range(6000))),
            expires_in_s=2 if why == "expired" else DAY_S,
        )
        async with asyncio.timeout(10):
            while len(handler.sizes) < 4:
                await asyncio.sleep(0.01)
        started_s = time.monotonic()
        if why == "cancelled":
            await runner.call(lambda store: store.cancel_batch(batch_id, "me"))
        batch = await ended(runner, batch_id)
        assert time.monotonic() - started_s < (2 if why == "cancelled" else 4) + 1.5
        assert batch.status == why
        _, refusals = await outcome(runner, batch)
        assert refusals == {f"id{n}": f"batch_{why}" for n in range(6000)}


async def test_a_full_disk_is_waited_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away makes a batch pause; once it is back the batch goes on, and nothing is answered twice."""
    handler = Handler()
    async with place.runner(handler) as runner:
        with monkeypatch.context() as patched:
            failures = []

            def full(*_: object) -> None:
                failures.append(1)
                raise StoreError("The server's disk failed: No space left on device.")

            patched.setattr("nestvec.jobs.objects.FolderObjects.put", full)
            store = runner._access.store
            batch_id = await _create_by_hand(runner, store, b"".join(map(line, range(10))))
            async with asyncio.timeout(10):
                while len(failures) < 2:
                    await asyncio.sleep(0.01)
            paused = await runner.call(lambda store: store.batch(batch_id))
            assert paused.status is Status.IN_PROGRESS
            assert place.registry.get_sample_value("nestvec_batch_store_down") == 1
        batch = await ended(runner, batch_id)
    assert (batch.status, batch.completed) == (Status.COMPLETED, 10)
    assert set(handler.answered.values()) == {1}
    assert place.registry.get_sample_value("nestvec_batch_store_down") == 0
    assert (place.has_ended("completed"), place.has_ended("failed")) == (1, 0)


async def _create_by_hand(runner: JobRunner, store: JobStore, content: bytes) -> str:
    """Store a batch whose input was there before the disk was full."""

    def keep(name: str, draft: Path) -> None:
        (store.folder / name).write_bytes(draft.read_bytes())

    store.objects.put = keep  # type: ignore[method-assign] # only for this upload
    try:
        return await create(runner, content)
    finally:
        del store.objects.put


async def test_a_lost_input_fails_what_is_left(place: Place) -> None:
    """A batch whose input has vanished fails with the reason, and what was answered is delivered."""
    handler = Handler()
    async with place.runner(handler) as runner:
        handler.gate.clear()
        batch_id = await create(runner, b"".join(map(line, range(5000))))
        async with asyncio.timeout(10):
            while len(handler.sizes) < 3:
                await asyncio.sleep(0.01)
        batch = await runner.call(lambda store: store.batch(batch_id))
        (place.folder / "a" / "files" / batch.input_file_id).unlink()
        handler.gate.set()
        batch = await ended(runner, batch_id)
        answers, _ = await outcome(runner, batch)
    assert batch.status is Status.FAILED
    assert (place.has_ended("completed"), place.has_ended("failed")) == (0, 1)
    assert [problem.code for problem in batch.problems] == ["store_error"]
    assert len(answers) == batch.completed
    assert batch.completed in (0, 1024, 2048, 3072)


async def test_keys_take_turns(place: Place) -> None:
    """One line of a key need not wait for the dozen large batches that another key sent before."""
    handler = Handler(delay_s=0.05)
    handler.gate.clear()
    async with place.runner(handler) as runner:
        large = [
            await create(runner, b"".join(map(line, range(3000))), owner="many") for _ in range(12)
        ]
        small_id = await create(runner, line(0), owner="few")
        async with asyncio.timeout(10):
            while len(handler.sizes) < 3 or not (
                await runner.call(lambda store: store.batch(small_id).total)
            ):
                await asyncio.sleep(0.01)
        handler.gate.set()
        assert (await ended(runner, small_id)).completed == 1
        others = [await runner.call(partial(JobStore.batch, batch_id=one)) for one in large]
        assert sum(batch.completed for batch in others) <= 8 * 1024


async def test_a_newcomer_waits_for_nothing_in_flight(place: Place) -> None:
    """While the chunks of one key take for ever, a line of another key is answered; a second such key waits."""
    handler = Handler(passes_gate="few")
    handler.gate.clear()
    async with place.runner(handler) as runner:
        large = [
            await create(runner, b"".join(map(line, range(3000))), owner="many") for _ in range(3)
        ]
        async with asyncio.timeout(10):
            while len(handler.sizes) < CHUNKS_AT_ONCE:
                await asyncio.sleep(0.01)
        for _ in range(2):
            small_id = await create(runner, line(0), owner="few")
            assert (await ended(runner, small_id)).completed == 1
        other_id = await create(runner, line(0), owner="held too")
        async with asyncio.timeout(10):
            while len(handler.sizes) < CHUNKS_AT_ONCE + 3:
                await asyncio.sleep(0.01)
        waiting_id = await create(runner, line(0), owner="few")
        await asyncio.sleep(0.6)
        assert len(handler.sizes) == CHUNKS_AT_ONCE + 3, "there is one place for newcomers"
        handler.gate.set()
        for batch_id in (*large, other_id, waiting_id):
            assert (await ended(runner, batch_id)).status is Status.COMPLETED


async def test_runners_share_the_work(shared_place: Place) -> None:
    """Two servers answer the chunks of one batch, each line once; what one uploads the other delivers."""
    handlers = Handler(delay_s=0.5), Handler(delay_s=0.5)
    async with (
        shared_place.runner(handlers[0], "a") as one,
        shared_place.runner(handlers[1], "b") as two,
    ):
        lines = [line(n, FAILS if n == 9 else "") for n in range(12 * 1024)]
        batch_id = await create(one, b"".join(lines))
        batch = await ended(two, batch_id)
        answers, refusals = await outcome(two, batch)
    assert answers == [f"id{n}" for n in range(12 * 1024) if n != 9]
    assert set(refusals) == {"id9"}
    assert all(handler.answered for handler in handlers)
    assert set((handlers[0].answered + handlers[1].answered).values()) == {1}


async def test_a_stopped_runner_is_replaced(shared_place: Place) -> None:
    """What a runner holds that is silent for longer than its lease is done by another; its own result is dropped."""
    stopped, alive = Handler(), Handler()
    stopped.gate.clear()
    async with shared_place.runner(stopped, "a", lease_s=0.6) as one:
        batch_id = await create(one, b"".join(map(line, range(2000))))
        async with asyncio.timeout(10):
            while len(stopped.sizes) < 2:
                await asyncio.sleep(0.01)
        # As if the process were stopped: it renews nothing.
        one._renew = _nothing  # type: ignore[method-assign] # it hears nothing
        async with shared_place.runner(alive, "b", lease_s=0.6) as two:
            batch = await ended(two, batch_id)
            stopped.gate.set()
            await asyncio.sleep(0.3)
            answers, _ = await outcome(two, batch)
            names = await two.call_contents(lambda store: list(store.objects.list("parts")))
    assert answers == [f"id{n}" for n in range(2000)]
    assert batch.completed == 2000
    assert [name for name in names if batch_id in name.name] == []


async def _nothing() -> None:
    """Renew nothing."""


def _nothing_held(holder: str | None, kept_chunks: object = (), kept_steps: object = ()) -> None:
    """Give nothing back."""


async def test_a_database_that_restarts_is_waited_for(
    shared_place: Place, postgres: Service
) -> None:
    """A database that crashes in the middle of a batch makes it pause: each line is answered, and once."""
    handler = Handler(delay_s=0.05)
    async with shared_place.runner(handler) as runner:
        batch_id = await create(runner, b"".join(map(line, range(8 * 1024))))
        async with asyncio.timeout(10):
            while len(handler.sizes) < 2:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(postgres.stop)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(postgres.start)
        batch = await ended(runner, batch_id)
        answers, _ = await outcome(runner, batch)
    assert answers == [f"id{n}" for n in range(8 * 1024)]


async def test_what_was_held_at_a_crash_goes_on_at_once(place: Place) -> None:
    """On one server nobody waits for the leases of the process before: a start takes over what it held."""
    handler = Handler()
    handler.gate.clear()
    async with place.runner(handler) as runner:
        batch_id = await create(runner, b"".join(map(line, range(100))))
        async with asyncio.timeout(10):
            while not handler.sizes:
                await asyncio.sleep(0.01)
        runner._access.store.release_all = _nothing_held  # type: ignore[method-assign] # a dead one gives nothing back
    started_s = time.monotonic()
    async with place.runner(Handler()) as runner:
        with runner._access.store._engine.connect() as connection:
            assert connection.execute(sa.select(chunks.c.attempts)).scalar() == 1
        assert (await ended(runner, batch_id)).completed == 100
    assert time.monotonic() - started_s < 10


async def test_batches_of_the_version_before_go_on(tmp_path: Path) -> None:
    """A store of the version without chunks is taken over: what was answered stays, the rest is answered, once.

    `data/store-0001.tar.gz` was made by that version's own runner, in groups of 16 lines: a batch of 45 lines stopped
    behind the second group, with a torn row behind it; one that was not begun; one whose answers were being named.
    """
    with tarfile.open(Path(__file__).parent / "data" / "store-0001.tar.gz") as archive:
        archive.extractall(tmp_path / "a", filter="data")
    handler = Handler()
    async with Place(tmp_path, {}).runner(handler) as runner:
        half = await ended(runner, "batch_half")
        answers = await rows(runner, half.output_file_id)
        assert [row["custom_id"] for row in answers] == [f"id{n}" for n in range(45) if n != 3]
        refusals = await rows(runner, half.error_file_id)
        assert [row["custom_id"] for row in refusals] == ["id3"]
        assert (half.total, half.completed, half.failed, half.input_tokens) == (45, 44, 1, 45)
        new = await ended(runner, "batch_new")
        assert (new.status, new.completed, new.failed) == (Status.COMPLETED, 9, 1)
        ending = await ended(runner, "batch_ending")
        assert ending.output_file_id == "file-out"
        assert len(await rows(runner, "file-out")) == 5
    assert {f"text {n}" for n in range(32, 45)} <= set(handler.answered)
    assert not {f"text {n}" for n in range(10, 32)} & set(handler.answered)
    assert list((tmp_path / "a" / "parts").iterdir()) == []
