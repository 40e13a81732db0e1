"""How much memory this process may use, and what a server of so much memory should take in at most."""

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUPS: Final = Path("/proc/self/cgroup")
MEMINFO: Final = Path("/proc/meminfo")
STATM: Final = Path("/proc/self/statm")
# Where nothing says how much memory there is.
ASSUMED_BYTES: Final = 4 * 2**30

# A request takes up to twelve times its body while it is parsed and tokenized: six tenths of the memory.
MEMORY_PER_BODY_BYTE: Final = 20
MOST_IN_FLIGHT_BYTES: Final = 512 * 2**20
# A waiting text takes 2 KiB, with its tokens, its place in the queue and the vector to come, and has two tokens or
# more: an eighth of the memory.
MEMORY_PER_QUEUE_TOKEN: Final = 8 * 1024
MOST_QUEUE_TOKENS: Final = 500_000
# The largest request may wait beside a quarter as much of others'.
QUEUE_PER_REQUEST: Final = 1.25
# A connection holds up to 64 KiB of headers, as much of a body that nobody has read yet, and what is being sent.
MEMORY_PER_CONNECTION: Final = 2 * 2**20
MOST_CONNECTIONS: Final = 2048
FEWEST_CONNECTIONS: Final = 64


@dataclass(frozen=True, slots=True)
class MemoryBounds:
    """What a process takes in at most.

    Attributes:
        in_flight_bytes: Bytes of bodies of requests under way.
        queue_tokens: Tokens that may wait.
        connections: Open connections.
    """

    in_flight_bytes: int
    queue_tokens: int
    connections: int


def bounds_for(
    memory_bytes: int, *, body_bytes: int, request_tokens: int, processes: int = 1
) -> MemoryBounds:
    """Return the bounds that suit a machine's or a container's memory: pure.

    Args:
        memory_bytes: How much memory there is.
        body_bytes: Size of the largest body; two of them always have room.
        request_tokens: Tokens of the largest request; others always have room beside it.
        processes: Number of HTTP processes that share the memory. The queue is one.
    """
    share_bytes = memory_bytes // max(1, processes)
    in_flight_bytes = min(MOST_IN_FLIGHT_BYTES, share_bytes // MEMORY_PER_BODY_BYTE)
    queue_tokens = min(MOST_QUEUE_TOKENS, memory_bytes // MEMORY_PER_QUEUE_TOKEN)
    connections = min(MOST_CONNECTIONS, share_bytes // MEMORY_PER_CONNECTION)
    return MemoryBounds(
        in_flight_bytes=max(in_flight_bytes, 2 * body_bytes),
        queue_tokens=max(queue_tokens, round(QUEUE_PER_REQUEST * request_tokens)),
        connections=max(connections, FEWEST_CONNECTIONS),
    )


def usable_memory_bytes(
    cgroups: Path = CGROUPS, own_cgroups: Path = OWN_CGROUPS, meminfo: Path = MEMINFO
) -> int:
    """Return how much memory this process may use: the machine's, or less where a control group allows less.

    Args:
        cgroups: Mount point of the cgroup file system, of version 1 or 2.
        own_cgroups: Tells which groups the process is in.
        meminfo: Tells how much memory the machine has.
    """
    limits = [*_limits_v2(cgroups, own_cgroups), *_limits_v1(cgroups, own_cgroups)]
    if (machine_bytes := _machine_bytes(meminfo)) is not None:
        limits.append(machine_bytes)
    return min(limits, default=ASSUMED_BYTES)


def resident_bytes() -> int:
    """Return how much memory this process has now; 0 where the system does not tell."""
    return _resident_pages()[0] * resource.getpagesize()


def anonymous_bytes() -> int:
    """Return how much memory this process has now, without what is mapped from files; 0 where it is not told."""
    resident, shared = _resident_pages()
    return (resident - shared) * resource.getpagesize()


def _resident_pages() -> tuple[int, int]:
    """Return the process's resident pages, and those of them that are of files or shared."""
    try:
        _, resident, shared, *_ = STATM.read_text().split()
        return int(resident), int(shared)
    except (OSError, ValueError):
        return 0, 0


def _limits_v2(cgroups: Path, own_cgroups: Path) -> Iterator[int]:
    """Yield the limits of the process's group and of all above it: `memory.max` holds bytes, or "max"."""
    for folder in _folders(cgroups, _own_path(own_cgroups, "")):
        yield from _numbers(folder / "memory.max")


def _limits_v1(cgroups: Path, own_cgroups: Path) -> Iterator[int]:
    """Yield the limits of version 1, where none is a huge number; `memory.stat` knows of groups not seen here."""
    for folder in _folders(cgroups / "memory", _own_path(own_cgroups, "memory")):
        yield from _numbers(folder / "memory.limit_in_bytes")
        yield from _numbers(folder / "memory.stat", "hierarchical_memory_limit")


def _own_path(own_cgroups: Path, controller: str) -> PurePosixPath:
    """Return the path of the process's group of a controller ("" for version 2), "/" where it is not told.

    Each line is "number:controllers:path" (cgroups(7)).
    """
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:
        return PurePosixPath("/")
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return PurePosixPath("/")


def _folders(mount: Path, group: PurePosixPath) -> Iterator[Path]:
    """Yield the folders of a group and of all above it; in a container they are not all there."""
    for path in (group, *group.parents):
        yield mount / str(path).lstrip("/")


def _numbers(file: Path, name: str = "") -> Iterator[int]:
    """Yield the number in a file, or that of a name in it; nothing where there is none."""
    try:
        for line in file.read_text().splitlines():
            words = line.split()
            if words[:-1] == ([name] if name else []):
                yield int(words[-1])
    except (OSError, ValueError, IndexError):
        return


def _machine_bytes(meminfo: Path) -> int | None:
    """Return the machine's memory; `MemTotal` is in KiB."""
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
