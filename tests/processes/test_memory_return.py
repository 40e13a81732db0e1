"""Memory goes back to the kernel when a process has grown by enough, and not again and again."""

from nestvec.processes.memory_return import MemoryReturn


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
