"""Chunks are claimed once at a time, finished once at all, and owners take turns; in SQLite and in PostgreSQL alike."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from nestvec.errors import ConfigError
from nestvec.jobs.chunks import ChunkTable
from nestvec.jobs.database import begin_writing, open_database
from nestvec.jobs.tables import DONE, batches, chunks, schema
from nestvec.jobs.types import BatchChunk, ChunkResult

from tests.support.services import Service, postgres_server

LEASE_S = 0.3


@pytest.fixture(scope="module")
def postgres() -> Iterator[Service]:
    """A PostgreSQL server."""
    with postgres_server() as service:
        yield service


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    service: Service = request.getfixturevalue("postgres")
    return service.url


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    """An empty database."""
    engine = open_database(url)
    with begin_writing(engine) as connection:
        for table in schema.sorted_tables:
            connection.execute(table.delete())
    yield engine
    engine.dispose()


def begin(engine: sa.Engine, batch_id: str, owner: str, count: int, size_bytes: int = 400) -> None:
    """Store a batch in progress with so many chunks of 10 requests."""
    row = {
        "id": batch_id,
        "owner": owner,
        "endpoint": "/v1/embeddings",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": "in_progress",
        "created_s": 0,
        "expires_s": 10**12,
        "times": "{}",
        "problems": "[]",
        "total": 10 * count,
        "chunks": count,
        **dict.fromkeys(
            ("completed", "failed", "input_tokens", "lines_done", "output_bytes", "error_bytes"), 0
        ),
    }
    with begin_writing(engine) as connection:
        connection.execute(batches.insert().values(row))
        new = (
            BatchChunk(batch_id, number, 10 * number, 10, size_bytes * number, size_bytes)
            for number in range(count)
        )
        assert ChunkTable(engine, lease_s=LEASE_S).add(connection, new) == count


def test_the_migrations_make_what_the_code_expects(engine: sa.Engine) -> None:
    """After all migrations the database has the tables and columns that the code names."""
    inspector = sa.inspect(engine)
    for table in schema.sorted_tables:
        found = {column["name"] for column in inspector.get_columns(table.name)}
        assert found == {column.name for column in table.columns}, table.name


def test_opening_at_once(url: str, engine: sa.Engine) -> None:
    """Several servers may open a new database at the same time: one migrates it, the others wait."""
    with begin_writing(engine) as connection:
        for table in (*schema.sorted_tables, sa.table("alembic_version")):
            connection.exec_driver_sql(f"DROP TABLE {table.name}")
    errors: list[Exception] = []

    def open_it() -> None:
        try:
            open_database(url).dispose()
        except Exception as error:  # noqa: BLE001 - any is a failure of the test
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sa.inspect(engine).has_table("chunks")


def test_each_chunk_is_claimed_in_order_and_once(engine: sa.Engine) -> None:
    """Two runners share a batch's chunks, from the first to the last."""
    begin(engine, "batch-1", "me", 5)
    table = ChunkTable(engine, lease_s=60)
    claimed = [table.claim(holder) for holder in ("a", "b", "a", "b", "a")]
    assert [chunk.number for chunk in claimed if chunk] == [0, 1, 2, 3, 4]
    assert table.claim("a") is None
    every = [("batch-1", number) for number in range(5)]
    assert table.renew("a", every) == {("batch-1", 0), ("batch-1", 2), ("batch-1", 4)}


def test_a_claim_that_runs_out_goes_to_another(engine: sa.Engine) -> None:
    """What a dead runner held is claimed anew, and its own late result is refused."""
    begin(engine, "batch-1", "me", 1)
    table = ChunkTable(engine, lease_s=LEASE_S)
    lost = table.claim("dead")
    assert lost is not None
    assert table.claim("alive") is None
    time.sleep(2 * LEASE_S)
    again = table.claim("alive")
    assert again is not None
    assert again.attempts == 1
    assert table.renew("dead", [("batch-1", 0)]) == set()
    assert not table.finish(lost, "dead", ChunkResult(completed=10, input_tokens=7))
    assert table.finish(again, "alive", ChunkResult(completed=9, failed=1, input_tokens=50))
    # Who has not heard that it worked tries again, and that counts nothing twice.
    assert table.finish(again, "alive", ChunkResult(completed=10))
    with engine.connect() as connection:
        row = connection.execute(sa.select(batches)).mappings().one()
    assert (row["completed"], row["failed"], row["input_tokens"], row["lines_done"]) == (
        9,
        1,
        50,
        10,
    )


def test_renewed_claims_last(engine: sa.Engine) -> None:
    """A runner that lives keeps what it holds."""
    begin(engine, "batch-1", "me", 1)
    table = ChunkTable(engine, lease_s=LEASE_S)
    chunk = table.claim("alive")
    assert chunk is not None
    for _ in range(6):
        time.sleep(LEASE_S / 3)
        assert table.renew("alive", [("batch-1", 0)]) == {("batch-1", 0)}
        assert table.claim("other") is None
    assert table.finish(chunk, "alive", ChunkResult(completed=10))


def test_what_was_given_back_is_no_attempt(engine: sa.Engine) -> None:
    """A chunk that its runner gives back waits again, as if it had never been claimed."""
    begin(engine, "batch-1", "me", 1)
    table = ChunkTable(engine, lease_s=60)
    for _ in range(3):
        chunk = table.claim("a")
        assert chunk is not None
        assert chunk.attempts == 0
        table.release(chunk, "a")
        table.release(chunk, "a")
    assert table.claim("b") is not None


def test_owners_take_turns_by_tokens(engine: sa.Engine) -> None:
    """One that has many batches waits as long as one that has one; large chunks count more."""
    for number in range(4):
        begin(engine, f"many-{number}", "many", 10)
    begin(engine, "few", "few", 5)
    begin(engine, "large", "large", 5, size_bytes=1600)
    table = ChunkTable(engine, lease_s=60)
    order = []
    for _ in range(13):
        chunk = table.claim("a")
        assert chunk is not None
        order.append(chunk.batch_id.split("-")[0])
        table.finish(chunk, "a", ChunkResult(input_tokens=chunk.charged_tokens))
    assert Counter(order) == {"many": 6, "few": 5, "large": 2}
    assert set(order[:3]) == {"many", "few", "large"}


def test_a_newcomer_does_not_catch_up(engine: sa.Engine) -> None:
    """Who comes later, or comes back, takes turns from then on, and is not owed what others had before."""
    begin(engine, "early", "early", 40)
    table = ChunkTable(engine, lease_s=60)
    for _ in range(20):
        assert table.claim("a") is not None
    begin(engine, "late", "late", 20)
    order = [chunk.batch_id for _ in range(10) if (chunk := table.claim("a"))]
    assert Counter(order)["late"] in (5, 6)
    assert "late" in order[:2]


def test_many_runners_do_each_chunk_once(engine: sa.Engine) -> None:
    """Runners of several servers claim and finish side by side; one of them dies with what it holds."""
    for number in range(3):
        begin(engine, f"batch-{number}", f"owner-{number}", 20)
    table = ChunkTable(engine, lease_s=LEASE_S)
    done: Counter[tuple[str, int]] = Counter()
    lock = threading.Lock()

    def work(holder: str, most: int) -> None:
        deadline_s = time.monotonic() + 20
        while most and time.monotonic() < deadline_s:
            chunk = table.claim(holder)
            if chunk is None:
                with engine.connect() as connection:
                    if not connection.execute(
                        sa.select(chunks).where(chunks.c.state != DONE)
                    ).first():
                        return
                time.sleep(0.02)
                continue
            most -= 1
            if most and table.finish(chunk, holder, ChunkResult(completed=10)):
                with lock:
                    done[chunk.batch_id, chunk.number] += 1

    # SQLite's engine is used by one thread at a time.
    runners = [("a", 10**6)] if engine.dialect.name == "sqlite" else [(n, 10**6) for n in "abc"]
    work("dies", 5)
    threads = [threading.Thread(target=work, args=runner) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(done.values()) == {1}
    with engine.connect() as connection:
        rows = connection.execute(sa.select(batches.c.completed, batches.c.lines_done)).all()
    assert [tuple(row) for row in rows] == [(200, 200)] * 3


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/x"])
def test_other_databases_are_refused(url: str) -> None:
    """A URL of no known database is an error of the settings, which does not repeat it."""
    with pytest.raises(ConfigError, match="database_url"):
        open_database(url)
