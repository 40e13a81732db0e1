"""Memory goes back to the kernel when a process has grown by enough, and not again and again."""

import mmap
from pathlib import Path

import pytest
from nestvec.processes.memory_return import MemoryReturn
from nestvec.system.memory import STATM, anonymous_bytes


def test_growth_is_returned_once() -> None:
    """Returning is due behind each growth of the given size, counted from what the last return has left."""
    memory = MemoryReturn(100)
    assert not memory.is_due(1000)
    assert not memory.is_due(1100)
    assert memory.is_due(1101)
    memory.returned(1050)
    assert not memory.is_due(1150)
    assert memory.is_due(1151)
    # What cannot be returned is in use: it is the new measure.
    memory.returned(1151)
    assert not memory.is_due(1200)


def test_a_process_that_shrinks() -> None:
    """Growth counts from the smallest that the process was since."""
    memory = MemoryReturn(100)
    memory.is_due(1000)
    memory.is_due(500)
    assert memory.is_due(601)


@pytest.mark.skipif(not STATM.exists(), reason="this system has no /proc")
def test_mapped_files_are_not_counted(tmp_path: Path) -> None:
    """Regression: weights that were read in, page by page, looked like memory to give back."""
    size = 32 << 20
    path = tmp_path / "weights"
    path.write_bytes(bytes(size))
    before = anonymous_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        assert anonymous_bytes() - before < size // 4
    # A mapping of its own: an allocation may be served from memory that the process has freed and still holds.
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        before = anonymous_bytes()
        held.write(b"1" * size)
        assert anonymous_bytes() - before > size // 2
