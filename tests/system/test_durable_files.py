"""Files that are resumed after a crash, and files that are replaced as a whole or not at all."""

import os
from pathlib import Path

import pytest
from nestvec.system.durable_files import atomic_write, open_truncated, sync


def test_a_file_is_truncated_and_resumed(tmp_path: Path) -> None:
    """What was written after the noted size is dropped."""
    path = tmp_path / "file"
    path.write_bytes(b"kept, and torn")
    with open_truncated(path, 4) as file:
        file.write(b"!")
        assert sync(file) == 5
    assert path.read_bytes() == b"kept!"


def test_size_zero_starts_a_new_file(tmp_path: Path) -> None:
    """The content of an earlier file is dropped."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with open_truncated(path, 0) as file:
        assert sync(file) == 0
    assert path.read_bytes() == b""


@pytest.mark.parametrize("content", [None, b"abc"])
def test_a_file_that_lost_something_is_not_filled_up(tmp_path: Path, content: bytes | None) -> None:
    """Zeros in the middle of an output would be worse than an error."""
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileNotFoundError) as caught:
        open_truncated(path, 4)
    assert caught.value.strerror
    assert not path.exists() or path.read_bytes() == content


def test_an_atomic_write_replaces_the_file_at_its_end(tmp_path: Path) -> None:
    """The old content is there until the block has ended, and nothing else is left in the folder."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path, mode=0o600) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_atomic_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The old file stays and the draft is removed, whatever the block raises."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_atomic_write_is_synced_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a power failure could leave the new name without its content."""
    steps: list[str] = []
    replace = Path.replace

    def note_sync(_: int) -> None:
        steps.append("fsync")

    def note_rename(old: Path, new: Path) -> Path:
        steps.append("rename")
        return replace(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    with atomic_write(tmp_path / "file") as file:
        file.write(b"new")
    assert steps == ["fsync", "rename"]
