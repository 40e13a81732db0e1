"""Files that are gone on with."""

from pathlib import Path

import pytest
from nestvec.system.durable_files import open_at, sync


def test_a_file_is_cut_back_and_gone_on_with(tmp_path: Path) -> None:
    """What came after the noted size is dropped."""
    path = tmp_path / "file"
    path.write_bytes(b"kept, and torn")
    with open_at(path, 4) as file:
        file.write(b"!")
        assert sync(file) == 5
    assert path.read_bytes() == b"kept!"


def test_size_nothing_is_a_new_file(tmp_path: Path) -> None:
    """Whatever lies there."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with open_at(path, 0) as file:
        assert sync(file) == 0
    assert path.read_bytes() == b""


@pytest.mark.parametrize("content", [None, b"abc"])
def test_a_file_that_lost_something_is_not_filled_up(tmp_path: Path, content: bytes | None) -> None:
    """Zeros in the middle of an output would be worse than an error."""
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileNotFoundError) as caught:
        open_at(path, 4)
    assert caught.value.strerror
    assert not path.exists() or path.read_bytes() == content
