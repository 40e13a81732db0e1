"""The store: owners, pages, expiry, migrations, one process a folder."""

import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nestvec.errors import InputError, NotFoundError, QuotaError, StoreError
from nestvec.jobs.store import JobStore, new_id
from nestvec.jobs.types import (
    BatchChunk,
    BatchJob,
    CheckedInput,
    ChunkResult,
    Problem,
    Purpose,
    Status,
    StoredFile,
)

from tests.support.job_store import add_file, delete_file, sweep

DAY_S = 86_400


class Clock:
    """A clock that a test sets."""

    now_s = 1_700_000_000.0

    def __call__(self) -> float:
        """Unix time in seconds."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock at a fixed time."""
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Any:
    """An empty store."""
    store = JobStore(tmp_path / "data", clock)
    yield store
    store.close()


def put(store: JobStore, owner: str = "me", **other: Any) -> StoredFile:
    """Store a file of five bytes."""
    draft = store.drafts_folder / "draft"
    draft.write_bytes(b"12345")
    values: dict[str, Any] = {
        "id": new_id("file-"),
        "owner": owner,
        "purpose": Purpose.BATCH,
        "filename": "in.jsonl",
        "size_bytes": 5,
        "created_s": store.now(),
    }
    most = other.pop("max_stored_bytes", 1000)
    file = StoredFile(**{**values, **other})
    add_file(store, file, draft, max_stored_bytes=most)
    return file


def content(store: JobStore, file: StoredFile) -> Path:
    """Where a file's content lies."""
    path = store.objects.local_path(store.content_name(file.id))
    assert path is not None
    return path


def contents(store: JobStore) -> list[str]:
    """Names of all contents."""
    return sorted(stored.name for stored in store.objects.list("files"))


def begin(store: JobStore, file: StoredFile, **other: Any) -> BatchJob:
    """Store a new batch over a file."""
    batch = BatchJob(
        id=new_id("batch_"),
        owner=file.owner,
        endpoint="/v1/embeddings",
        input_file_id=file.id,
        completion_window="24h",
        status=Status.VALIDATING,
        created_s=store.now(),
        expires_s=store.now() + DAY_S,
        **other,
    )
    store.add_batch(batch)
    return batch


def test_nobody_sees_anothers(store: JobStore) -> None:
    """Objects of another key cannot be found, listed, deleted or cancelled."""
    file = put(store, "me")
    batch = begin(store, file)
    for look in (
        lambda: store.file(file.id, "you"),
        lambda: delete_file(store, file.id, "you"),
        lambda: store.batch(batch.id, "you"),
        lambda: store.cancel_batch(batch.id, "you"),
        lambda: store.list_batches("you", after=batch.id, limit=5),
    ):
        with pytest.raises(NotFoundError):
            look()
    assert store.list_batches("you", after=None, limit=5) == ([], False)
    assert store.stored_bytes("you") == 0
    assert store.file(file.id, "me") == file
    assert store.batch(batch.id, "me") == batch


@pytest.mark.parametrize("is_ascending", [True, False])
def test_pages_cover_everything_once(store: JobStore, *, is_ascending: bool) -> None:
    """Pages cover all files once in either order, and the last page says that it is the last."""
    file_ids = [put(store).id for _ in range(5)]
    seen: list[str] = []
    has_more = True
    while has_more:
        files, has_more = store.list_files(
            "me",
            after=seen[-1] if seen else None,
            limit=2,
            purpose=None,
            is_ascending=is_ascending,
        )
        seen += [file.id for file in files]
    assert seen == (file_ids if is_ascending else file_ids[::-1])


def test_a_quota_holds(store: JobStore) -> None:
    """All files of a key together stay within the quota."""
    put(store)
    with pytest.raises(QuotaError):
        put(store, max_stored_bytes=9)
    assert store.stored_bytes("me") == 5


def test_what_has_expired_is_gone(store: JobStore, clock: Clock) -> None:
    """An expired file is not found any more, and deleted at the next sweep, unless a batch reads it."""
    read, unread = (put(store, expires_s=store.now() + 10) for _ in range(2))
    batch = begin(store, read)
    clock.now_s += 11
    with pytest.raises(NotFoundError):
        store.file(unread.id, "me")
    sweep(store)
    assert content(store, read).exists()
    assert not content(store, unread).exists()
    store.fail_batch(batch.id, [])
    sweep(store)
    assert not content(store, read).exists()


def test_contents_without_a_row_are_swept(store: JobStore) -> None:
    """What a crash has left without a row is deleted at the next start, but nothing that is just being stored."""
    file = put(store)
    batch = begin(store, file)
    for name in ("files/file-orphan", "parts/batch_gone/0-x-0.output", "parts/batch_gone.errors"):
        path = store.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    old = store.folder / "parts" / f"{batch.id}.output"
    old.write_bytes(b"x")
    sweep(store)
    assert len(contents(store)) == 2
    store.close()
    time.sleep(0.02)
    again = JobStore(store.folder, store._clock)
    sweep(again)
    assert contents(again) == [f"files/{file.id}"]
    assert list((store.folder / "parts").rglob("*")) == [old]
    again.close()


def test_a_file_being_read_cannot_be_deleted(store: JobStore) -> None:
    """A file can be deleted only after its batch has ended."""
    file = put(store)
    batch = begin(store, file)
    with pytest.raises(InputError, match=batch.id):
        delete_file(store, file.id, "me")
    store.fail_batch(batch.id, [])
    delete_file(store, file.id, "me")
    assert not content(store, file).exists()


def test_times_are_set_once(store: JobStore, clock: Clock) -> None:
    """The time at which a status was reached is set once and never cleared."""
    batch = begin(store, put(store), metadata={"k": "v"})
    first_s = store.now()
    assert store.cancel_batch(batch.id, "me").times == {"cancelling": first_s}
    clock.now_s += 5
    assert store.cancel_batch(batch.id, "me").times == {"cancelling": first_s}
    problem = Problem("empty_file", "No lines.", None, 3)
    store.fail_batch(batch.id, [problem])
    store.fail_batch(batch.id, [])
    failed = store.batch(batch.id)
    assert (failed.problems, failed.metadata) == ((problem,), {"k": "v"})
    assert failed.times == {"cancelling": first_s, "failed": first_s + 5}


def test_a_cancelled_batch_stays_cancelled(store: JobStore) -> None:
    """A late change of the runner does not undo a cancellation, and a batch that has ended stays ended."""
    batch = begin(store, put(store))
    claimed = store.claim_check("runner")
    assert claimed is not None
    assert store.cancel_batch(batch.id, "me").status is Status.CANCELLING
    found = CheckedInput(1, None, 0, [BatchChunk(batch.id, 0, 0, 1, 0, 5)])
    store.begin_batch(batch.id, "runner", found, 1000)
    assert store.batch(batch.id).status is Status.CANCELLING
    chunk = store.chunks.claim("runner")
    assert chunk is not None
    store.chunks.finish(chunk, "runner", ChunkResult(refused="cancelled"))
    assert store.end_batch(batch.id, [])
    assert not store.end_batch(batch.id, [])
    assert store.cancel_batch(batch.id, "me").status is Status.CANCELLED


def test_one_process_owns_a_folder(store: JobStore) -> None:
    """A second process is refused."""
    with pytest.raises(StoreError, match="another process"):
        JobStore(store.folder, store._clock)


def test_what_was_kept_is_there_again(store: JobStore) -> None:
    """Files and batches are there after a restart; the database is in WAL mode."""
    file = put(store)
    batch = begin(store, file)
    store.close()
    again = JobStore(store.folder, store._clock)
    try:
        assert again.file(file.id, "me") == file
        assert again.list_batches("me", after=None, limit=5) == ([batch], False)
    finally:
        again.close()
    with sqlite3.connect(store.folder / "jobs.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_the_migrations_make_what_the_code_expects(store: JobStore) -> None:
    """Migrations and tables have the same columns: a new column needs a migration of its own."""
    from nestvec.jobs.tables import schema

    with sqlite3.connect(store.folder / "jobs.db") as connection:
        for table in schema.sorted_tables:
            rows = connection.execute(f"PRAGMA table_info({table.name})").fetchall()
            assert [row[1] for row in rows] == [column.name for column in table.columns]
    connection.close()


def test_a_broken_database_is_an_error(tmp_path: Path) -> None:
    """A broken database is an error with a reason, and the file is left as it is."""
    (tmp_path / "jobs.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        JobStore(tmp_path, Clock())
    assert (tmp_path / "jobs.db").read_bytes().startswith(b"not a database")


def test_uploads_that_a_crash_cut_short_are_gone(store: JobStore) -> None:
    """Cut uploads are deleted at the next start, those of earlier versions too; parts of batches stay."""
    store.upload_path().write_bytes(b"half")
    (store.folder / "parts" / "upload-old").write_bytes(b"half")
    part = store.folder / "parts" / f"{begin(store, put(store)).id}.output"
    part.write_bytes(b"some")
    store.close()
    again = JobStore(store.folder, store._clock)
    assert list((store.folder / "parts").iterdir()) == [part]
    assert list(again.drafts_folder.iterdir()) == []
    again.close()


def test_a_newer_versions_store_is_left_alone(store: JobStore) -> None:
    """A store of a newer version is an error with a reason: the server goes on without files and batches."""
    store.close()
    with sqlite3.connect(store.folder / "jobs.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match="newer version"):
        JobStore(store.folder, store._clock)


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """Files hold texts of callers, so no other user may read them."""
    store = JobStore(tmp_path / "data", time.time)
    store.close()
    for path in ("files", "parts", "drafts", "jobs.db"):
        assert (tmp_path / "data" / path).stat().st_mode & 0o077 == 0, path


def test_several_processes_change_one_store(tmp_path: Path) -> None:
    """What one process stores the other sees, and none undoes the other's changes."""
    store, other = (JobStore(tmp_path / "data", time.time, is_shared=True) for _ in range(2))
    file = put(store)
    assert other.file(file.id, "me") == file
    # Neither process has stored a row of it yet: the other may be about to.
    (store.folder / "files" / "file-2").write_bytes(b"y")
    sweep(other)
    assert contents(other) == sorted([f"files/{file.id}", "files/file-2"])
    store.close()
    other.close()


def test_uploads_under_way_take_room(store: JobStore, clock: Clock) -> None:
    """Room is kept for an upload before its first byte, by its size or as much as there is, and comes back."""
    bounds = {"max_file_bytes": 60, "max_stored_bytes": 100}
    assert store.reserve_upload("a", "me", 50, **bounds) == 50
    with pytest.raises(QuotaError, match="max_stored_bytes") as caught:
        store.reserve_upload("b", "me", 51, **bounds)
    assert caught.value.param == "file"
    assert store.reserve_upload("b", "me", None, **bounds) == 50
    with pytest.raises(QuotaError):
        store.reserve_upload("c", "me", None, **bounds)
    assert store.reserve_upload("c", "you", None, **bounds) == 60
    with pytest.raises(QuotaError):
        put(store, max_stored_bytes=100)
    assert contents(store) == []
    store.end_upload("a")
    put(store, max_stored_bytes=100)
    # A process that dies does not give it back, time does.
    clock.now_s += 3601
    assert store.stored_bytes("me") == 5


def test_batches_are_bounded(store: JobStore) -> None:
    """A key has so many unfinished batches, and room for their answers is kept before any of them runs."""
    file = put(store)
    first = begin(store, file)
    values = {"max_unfinished": 2, "max_stored_bytes": 1000}
    store.add_batch(replace(first, id="batch_2"), **values)
    with pytest.raises(QuotaError, match="max_unfinished_batches"):
        store.add_batch(replace(first, id="batch_3"), **values)
    store.add_batch(replace(first, id="batch_3", owner="you"), **values)
    assert store.claim_check("runner") == first
    chunk = BatchChunk(first.id, 0, 0, 1, 0, 5)
    with pytest.raises(QuotaError, match="max_stored_bytes"):
        store.begin_batch(first.id, "runner", CheckedInput(1, None, 996, [chunk]), 1000)
    store.begin_batch(first.id, "runner", CheckedInput(1, None, 995, [chunk]), 1000)
    assert store.stored_bytes("me") == 1000
    store.fail_batch("batch_2", [])
    with pytest.raises(QuotaError, match="max_stored_bytes"):
        store.add_batch(replace(first, id="batch_4"), **values)
    with pytest.raises(QuotaError):
        put(store)
    store.fail_batch(first.id, [])
    assert store.stored_bytes("me") == 5


def test_a_batch_of_a_deleted_file_is_refused(store: JobStore) -> None:
    """A file that was deleted since it was looked up begins no batch."""
    file = put(store)
    delete_file(store, file.id, "me")
    with pytest.raises(NotFoundError):
        begin(store, file)
