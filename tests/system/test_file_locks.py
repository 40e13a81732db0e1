"""A lock is one process's, until the file is closed."""

from pathlib import Path

from nestvec.system.file_locks import try_lock


def test_a_locked_file_is_nobody_elses(tmp_path: Path) -> None:
    """Another opening of it finds it locked, and free once it is closed."""
    path = tmp_path / "lock"
    with path.open("ab") as first:
        assert try_lock(first)
        with path.open("ab") as second:
            assert not try_lock(second)
    with path.open("ab") as third:
        assert try_lock(third)
