"""How much memory a process may use, from control groups of both versions, and which bounds follow from it."""

from pathlib import Path

import pytest
from nestvec.system.memory import (
    ASSUMED_BYTES,
    FEWEST_CONNECTIONS,
    MOST_CONNECTIONS,
    MOST_IN_FLIGHT_BYTES,
    MOST_QUEUE_TOKENS,
    bounds_for,
    usable_memory_bytes,
)

GIB = 2**30
NO_LIMIT_V1 = "9223372036854771712"


def machine(folder: Path, files: dict[str, str], own: str = "", total_kib: int = 0) -> int:
    """Return the memory that a process finds on a machine of these files."""
    for name, content in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    (folder / "own").write_text(own)
    (folder / "meminfo").write_text(
        f"MemTotal: {total_kib} kB\nMemFree: 1 kB\n" if total_kib else ""
    )
    return usable_memory_bytes(folder / "cgroup", folder / "own", folder / "meminfo")


def test_version_2_takes_the_smallest_of_all_above(tmp_path: Path) -> None:
    """The smallest limit of the group and of all groups above it counts, and "max" is none."""
    files = {
        "a/b/c/memory.max": "max",
        "a/b/memory.max": str(2 * GIB),
        "a/memory.max": str(3 * GIB),
        "memory.max": "max",
    }
    assert machine(tmp_path, files, "0::/a/b/c\n", 16 * 2**20) == 2 * GIB


def test_version_2_in_a_container(tmp_path: Path) -> None:
    """A container sees its own group as the root."""
    assert machine(tmp_path, {"memory.max": str(GIB)}, "0::/\n", 16 * 2**20) == GIB


def test_version_1_takes_the_smallest_of_all_above(tmp_path: Path) -> None:
    """The memory controller's group is looked up by name; limits that are not seen here stand in its statistics."""
    files = {
        "memory/x/y/memory.limit_in_bytes": NO_LIMIT_V1,
        "memory/x/memory.limit_in_bytes": str(3 * GIB),
        "memory/memory.limit_in_bytes": NO_LIMIT_V1,
        "memory/x/y/memory.stat": f"cache 5\nhierarchical_memory_limit {3 * GIB}\ntotal_rss 7",
    }
    own = "9:name=systemd:/z\n4:cpuset,memory:/x/y\n0::/\n"
    assert machine(tmp_path, files, own, 16 * 2**20) == 3 * GIB
    files["memory/x/y/memory.stat"] = f"hierarchical_memory_limit {GIB}"
    assert machine(tmp_path, files, own, 16 * 2**20) == GIB


def test_version_1_in_a_container(tmp_path: Path) -> None:
    """A container's path is not there in what it has mounted; then the mounted root is its group."""
    files = {"memory/memory.limit_in_bytes": str(GIB)}
    assert machine(tmp_path, files, "4:memory:/docker/0123\n", 16 * 2**20) == GIB


@pytest.mark.parametrize(("total_kib", "expected"), [(8 * 2**20, 8 * GIB), (0, ASSUMED_BYTES)])
def test_without_groups_it_is_the_machines(tmp_path: Path, total_kib: int, expected: int) -> None:
    """Without a limit, and with files that are no numbers, the machine's memory counts, or what is assumed."""
    files = {"memory.max": "max", "memory/memory.limit_in_bytes": "what"}
    assert machine(tmp_path, files, "rubbish", total_kib) == expected


def test_this_machine_has_memory() -> None:
    """On the machine of the test the answer is a sane number."""
    assert 2**28 < usable_memory_bytes() < 2**45


def test_bounds_of_a_gigabyte() -> None:
    """In one gigabyte bodies get 51 MiB, the queue 131,072 tokens, and 512 connections are taken."""
    bounds = bounds_for(GIB, body_bytes=16 * 2**20, request_tokens=100_000)
    assert bounds.in_flight_bytes == GIB // 20
    assert bounds.queue_tokens == 131_072
    assert bounds.connections == 512


def test_bounds_have_ends() -> None:
    """A large machine gets the former fixed bounds; a tiny one still takes the largest request."""
    large = bounds_for(2**40, body_bytes=16 * 2**20, request_tokens=100_000)
    assert (large.in_flight_bytes, large.queue_tokens, large.connections) == (
        MOST_IN_FLIGHT_BYTES,
        MOST_QUEUE_TOKENS,
        MOST_CONNECTIONS,
    )
    tiny = bounds_for(2**26, body_bytes=16 * 2**20, request_tokens=100_000)
    assert (tiny.in_flight_bytes, tiny.queue_tokens, tiny.connections) == (
        32 * 2**20,
        125_000,
        FEWEST_CONNECTIONS,
    )


def test_processes_share_the_memory() -> None:
    """With several HTTP processes each takes its part, and the one queue is as long as before."""
    one = bounds_for(4 * GIB, body_bytes=2**20, request_tokens=100_000)
    four = bounds_for(4 * GIB, body_bytes=2**20, request_tokens=100_000, processes=4)
    assert four.in_flight_bytes == one.in_flight_bytes // 4
    assert four.connections == one.connections // 4
    assert four.queue_tokens == one.queue_tokens
