"""The store: owners, pages, expiry, migrations, one process a folder."""

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from nestvec.errors import InputError, NotFoundError, QuotaError, StoreError
from nestvec.jobs.store import JobStore, new_id
from nestvec.jobs.types import Batch, Problem, Purpose, Status, StoredFile

DAY_S = 86_400


class Clock:
    """Time that a test sets."""

    now_s = 1_700_000_000.0

    def __call__(self) -> float:
        """Unix seconds."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """At a fixed time."""
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Any:
    """An empty one."""
    made = JobStore(tmp_path / "data", clock)
    yield made
    made.close()


def put(store: JobStore, owner: str = "me", **other: Any) -> StoredFile:
    """Keep a file of five bytes."""
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


def begin(store: JobStore, file: StoredFile, **other: Any) -> Batch:
    """A new batch of a file."""
    batch = Batch(
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
    """Neither by id, nor in a list, nor to delete or to cancel."""
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
    """In either order; the last says that it is."""
    made = [put(store).id for _ in range(5)]
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
    assert seen == (made if is_ascending else made[::-1])


def test_a_quota_holds(store: JobStore) -> None:
    """Over all files of a key."""
    put(store)
    with pytest.raises(QuotaError):
        store.add_file(put(store), store.parts_folder / "draft", max_stored_bytes=12)
    assert store.stored_bytes("me") == 10


def test_what_has_expired_is_gone(store: JobStore, clock: Clock) -> None:
    """From view at once, from disk at the next sweep; not while a batch reads it."""
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
    """A crash may fall between the two."""
    (store.files_folder / "file-orphan").write_bytes(b"x")
    kept = put(store)
    store.sweep()
    assert [path.name for path in store.files_folder.iterdir()] == [kept.id]


def test_a_file_being_read_cannot_be_deleted(store: JobStore) -> None:
    """Until its batch has ended."""
    file = put(store)
    batch = begin(store, file)
    with pytest.raises(InputError, match=batch.id):
        store.delete_file(file.id, "me")
    store.update_batch(batch.id, status=Status.FAILED)
    store.delete_file(file.id, "me")
    assert not store.content_path(file.id).exists()


def test_times_are_set_once(store: JobStore, clock: Clock) -> None:
    """And never cleared."""
    batch = begin(store, put(store), metadata={"k": "v"})
    first = store.update_batch(batch.id, status=Status.IN_PROGRESS)
    clock.now_s += 5
    again = store.update_batch(batch.id, status=Status.IN_PROGRESS)
    assert again.times == first.times == {"in_progress": store.now() - 5}
    problem = Problem("empty_file", "No lines.", None, 3)
    failed = store.update_batch(batch.id, status=Status.FAILED, problems=[problem])
    assert (failed.problems, failed.metadata) == ((problem,), {"k": "v"})


def test_a_cancelled_batch_stays_cancelled(store: JobStore) -> None:
    """Whatever its runner was about to say; one that has ended stays as it is."""
    batch = begin(store, put(store))
    assert store.cancel_batch(batch.id, "me").status is Status.CANCELLING
    late = store.update_batch(batch.id, only_if=Status.VALIDATING, status=Status.IN_PROGRESS)
    assert late.status is Status.CANCELLING
    store.update_batch(batch.id, status=Status.COMPLETED)
    assert store.cancel_batch(batch.id, "me").status is Status.COMPLETED


def test_one_process_owns_a_folder(store: JobStore) -> None:
    """The other is told."""
    with pytest.raises(StoreError, match="another process"):
        JobStore(store.folder, store._clock)


def test_what_was_kept_is_there_again(store: JobStore) -> None:
    """After a restart; write-ahead logging and full syncs are on."""
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
    """Columns of both; a new column needs a migration of its own."""
    from nestvec.jobs.tables import schema

    with sqlite3.connect(store.folder / "jobs.db") as connection:
        for table in schema.sorted_tables:
            rows = connection.execute(f"PRAGMA table_info({table.name})").fetchall()
            assert [row[1] for row in rows] == [column.name for column in table.columns]
    connection.close()


def test_a_broken_database_is_an_error(tmp_path: Path) -> None:
    """Not a trace; the file is left as it is."""
    (tmp_path / "jobs.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="cannot be opened"):
        JobStore(tmp_path, Clock())
    assert (tmp_path / "jobs.db").read_bytes().startswith(b"not a database")


def test_uploads_that_a_crash_cut_short_are_gone(store: JobStore) -> None:
    """At the next start; parts of batches stay."""
    store.upload_path().write_bytes(b"half")
    part = store.part_path(begin(store, put(store)), "output")
    part.write_bytes(b"some")
    store.close()
    again = JobStore(store.folder, store._clock)
    assert list(again.parts_folder.iterdir()) == [part]
    again.close()


def test_a_newer_versions_store_is_left_alone(store: JobStore) -> None:
    """Said, not crashed over: the server goes on without files and batches."""
    store.close()
    with sqlite3.connect(store.folder / "jobs.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match="newer version"):
        JobStore(store.folder, store._clock)


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """Files are callers' texts."""
    store = JobStore(tmp_path / "data", time.time)
    store.close()
    for path in ("files", "parts", "jobs.db"):
        assert (tmp_path / "data" / path).stat().st_mode & 0o077 == 0, path


def test_several_processes_change_one_store(tmp_path: Path) -> None:
    """What one notes, the other sees, and none undoes the other's change."""
    one, other = (JobStore(tmp_path / "data", time.time, is_shared=True) for _ in range(2))
    made = one.unfinished()
    assert made == []
    content = tmp_path / "content"
    content.write_bytes(b"x")
    file = StoredFile("file-1", "", Purpose.BATCH, "in.jsonl", 1, 0, None)
    one.add_file(file, content, 10)
    assert other.file("file-1", "") == file
    other.sweep()
    assert other.content_path("file-1").exists()
    # Noted by neither yet: it may be on its way in the other process.
    one.content_path("file-2").write_bytes(b"y")
    other.sweep()
    assert one.content_path("file-2").exists()
    one.close()
    other.close()
