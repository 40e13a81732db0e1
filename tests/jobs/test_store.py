"""The store: owners, pages, expiry, migrations, one process a folder."""

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from nestvec.errors import InputError, NotFoundError, QuotaError, StoreError
from nestvec.jobs.store import JobStore, new_id
from nestvec.jobs.types import BatchJob, Problem, Purpose, Status, StoredFile

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
    draft = store.parts_folder / "draft"
    draft.write_bytes(b"12345")
    values: dict[str, Any] = {
        "id": new_id("file-"),
        "owner": owner,
        "purpose": Purpose.BATCH,
        "filename": "in.jsonl",
        "size_bytes": 5,
        "created_s": store.now(),
    }
    file = StoredFile(**{**values, **other})
    store.add_file(file, draft, max_stored_bytes=1000)
    return file


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
        lambda: store.delete_file(file.id, "you"),
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
        store.add_file(put(store), store.parts_folder / "draft", max_stored_bytes=12)
    assert store.stored_bytes("me") == 10


def test_what_has_expired_is_gone(store: JobStore, clock: Clock) -> None:
    """An expired file is not found any more, and deleted at the next sweep, unless a batch reads it."""
    read, unread = (put(store, expires_s=store.now() + 10) for _ in range(2))
    batch = begin(store, read)
    clock.now_s += 11
    with pytest.raises(NotFoundError):
        store.file(unread.id, "me")
    store.sweep()
    assert store.content_path(read.id).exists()
    assert not store.content_path(unread.id).exists()
    store.update_batch(batch.id, status=Status.FAILED)
    store.sweep()
    assert not store.content_path(read.id).exists()


def test_contents_without_a_row_are_swept(store: JobStore) -> None:
    """A content that a crash has left without a row is deleted."""
    (store.files_folder / "file-orphan").write_bytes(b"x")
    file = put(store)
    store.sweep()
    assert [path.name for path in store.files_folder.iterdir()] == [file.id]


def test_a_file_being_read_cannot_be_deleted(store: JobStore) -> None:
    """A file can be deleted only after its batch has ended."""
    file = put(store)
    batch = begin(store, file)
    with pytest.raises(InputError, match=batch.id):
        store.delete_file(file.id, "me")
    store.update_batch(batch.id, status=Status.FAILED)
    store.delete_file(file.id, "me")
    assert not store.content_path(file.id).exists()


def test_times_are_set_once(store: JobStore, clock: Clock) -> None:
    """The time at which a status was reached is set once and never cleared."""
    batch = begin(store, put(store), metadata={"k": "v"})
    first = store.update_batch(batch.id, status=Status.IN_PROGRESS)
    clock.now_s += 5
    again = store.update_batch(batch.id, status=Status.IN_PROGRESS)
    assert again.times == first.times == {"in_progress": store.now() - 5}
    problem = Problem("empty_file", "No lines.", None, 3)
    failed = store.update_batch(batch.id, status=Status.FAILED, problems=[problem])
    assert (failed.problems, failed.metadata) == ((problem,), {"k": "v"})


def test_a_cancelled_batch_stays_cancelled(store: JobStore) -> None:
    """A late change of the runner does not undo a cancellation, and a batch that has ended stays ended."""
    batch = begin(store, put(store))
    assert store.cancel_batch(batch.id, "me").status is Status.CANCELLING
    late = store.update_batch(batch.id, only_if=Status.VALIDATING, status=Status.IN_PROGRESS)
    assert late.status is Status.CANCELLING
    store.update_batch(batch.id, status=Status.COMPLETED)
    assert store.cancel_batch(batch.id, "me").status is Status.COMPLETED


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
        assert again.unfinished() == [batch]
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
    """Cut uploads are deleted at the next start; parts of batches stay."""
    store.upload_path().write_bytes(b"half")
    part = store.part_path(begin(store, put(store)), "output")
    part.write_bytes(b"some")
    store.close()
    again = JobStore(store.folder, store._clock)
    assert list(again.parts_folder.iterdir()) == [part]
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
    for path in ("files", "parts", "jobs.db"):
        assert (tmp_path / "data" / path).stat().st_mode & 0o077 == 0, path


def test_several_processes_change_one_store(tmp_path: Path) -> None:
    """What one process stores the other sees, and none undoes the other's changes."""
    store, other = (JobStore(tmp_path / "data", time.time, is_shared=True) for _ in range(2))
    assert store.unfinished() == []
    content = tmp_path / "content"
    content.write_bytes(b"x")
    file = StoredFile("file-1", "", Purpose.BATCH, "in.jsonl", 1, 0, None)
    store.add_file(file, content, 10)
    assert other.file("file-1", "") == file
    other.sweep()
    assert other.content_path("file-1").exists()
    # Neither process has stored a row of it yet: the other may be about to.
    store.content_path("file-2").write_bytes(b"y")
    other.sweep()
    assert store.content_path("file-2").exists()
    store.close()
    other.close()
