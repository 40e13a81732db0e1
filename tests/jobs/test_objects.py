"""Objects are there whole or not at all, in a folder and in an object store alike."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from nestvec.errors import ConfigError, StoreError
from nestvec.jobs.objects import (
    PIECE_BYTES,
    MissingObjectError,
    ObjectStore,
    object_draft,
    open_objects,
)

from tests.support.services import Service, make_bucket, s3_server

CONTENT = os.urandom(2 * PIECE_BYTES + 17)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An S3 store."""
    with s3_server(tmp_path_factory.mktemp("s3")) as service:
        yield service


@pytest.fixture(params=["folder", "memory", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    """An empty store of each kind."""
    if request.param == "s3":
        service: Service = request.getfixturevalue("s3")
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        return open_objects(f"{service.url}/{tmp_path.name}", tmp_path)
    return open_objects("memory:///" if request.param == "memory" else "", tmp_path / "objects")


def put(store: ObjectStore, folder: Path, name: str, content: bytes) -> None:
    """Store an object."""
    with object_draft(folder) as draft:
        draft.write(content)
        draft.flush()
        store.put(name, Path(draft.name))


def test_what_was_put_is_read(store: ObjectStore, tmp_path: Path) -> None:
    """An object is read as it was stored, whole and in ranges, and its draft is gone."""
    put(store, tmp_path / "drafts", "files/file-1", CONTENT)
    assert b"".join(store.read("files/file-1")) == CONTENT
    for start, end in ((0, 1), (5, PIECE_BYTES + 9), (PIECE_BYTES, len(CONTENT)), (7, 7)):
        assert b"".join(store.read("files/file-1", start, end)) == CONTENT[start:end]
    assert b"".join(store.read("files/file-1", 100)) == CONTENT[100:]
    assert store.size("files/file-1") == len(CONTENT)
    assert list((tmp_path / "drafts").iterdir()) == []


def test_empty_objects(store: ObjectStore, tmp_path: Path) -> None:
    """An object may be empty."""
    put(store, tmp_path / "drafts", "files/empty", b"")
    assert b"".join(store.read("files/empty")) == b""
    assert store.size("files/empty") == 0


def test_listing_and_deleting(store: ObjectStore, tmp_path: Path) -> None:
    """A listing has the objects below its prefix only; deleting what is gone is no error."""
    names = ["parts/batch-1/0-a.output", "parts/batch-1/1-b.output", "parts/batch-10/0-c.output"]
    for name in names:
        put(store, tmp_path / "drafts", name, name.encode())
    listed = {item.name: item.size_bytes for item in store.list("parts/batch-1")}
    assert listed == {name: len(name) for name in names[:2]}
    store.delete([*names[:2], "parts/batch-1/none"])
    assert [item.name for item in store.list("parts")] == names[2:]
    assert list(store.list("nothing")) == []


def test_a_missing_object(store: ObjectStore) -> None:
    """What is not there has no size, and reading it is an error of the store."""
    assert store.size("files/none") is None
    with pytest.raises(StoreError):
        b"".join(store.read("files/none"))


def test_a_draft_that_fails_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    """An object whose draft breaks off is not there, and neither is the draft."""

    def break_off() -> None:
        with object_draft(tmp_path / "drafts") as draft:
            draft.write(CONTENT)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert list((tmp_path / "drafts").iterdir()) == []
    assert list(store.list("files")) == []


def test_objects_of_a_folder_are_private(tmp_path: Path) -> None:
    """Only the owner may read objects and their folders."""
    store = open_objects(f"file://{tmp_path / 'objects'}", tmp_path)
    put(store, tmp_path / "drafts", "files/file-1", b"text")
    path = store.local_path("files/file-1")
    assert path == tmp_path / "objects/files/file-1"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_store_that_is_away(s3: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be reached is an error without its address; what was to be stored is still there."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("nestvec.jobs.objects.MAX_RETRIES", 0)
    store = open_objects(s3.url, tmp_path)
    s3.stop(signal.SIGTERM)
    try:
        with object_draft(tmp_path) as draft:
            draft.write(b"text")
            draft.flush()
            with pytest.raises(StoreError) as caught:
                store.put("files/file-1", Path(draft.name))
            assert Path(draft.name).exists()
        assert not isinstance(caught.value, MissingObjectError)
        assert "127.0.0.1" not in caught.value.message
    finally:
        s3.start()
        make_bucket(s3)


@pytest.mark.parametrize("url", ["nonsense", "ftp://host/x", "s4://bucket"])
def test_a_url_of_no_store(url: str, tmp_path: Path) -> None:
    """A URL that names no store is an error of the settings."""
    with pytest.raises(ConfigError, match="files_url"):
        open_objects(url, tmp_path)
