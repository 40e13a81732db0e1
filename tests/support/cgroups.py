"""A memory cgroup of a test's own, as a container has one: version 2 or 1, where the machine lets us make one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOUNT: Final = Path("/sys/fs/cgroup")
# Names of the files: the limit, the limit with swap, the highest use, and what tells of killed processes.
VERSION_1: Final = (
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.oom_control",
)
VERSION_2: Final = ("memory.max", "memory.swap.max", "memory.peak", "memory.events")


class NoCgroupError(Exception):
    """The machine does not let us make a memory cgroup."""


@dataclass(frozen=True, slots=True)
class MemoryCgroup:
    """A memory cgroup.

    Attributes:
        folder: Where the kernel shows it.
        names: Names of its files.
    """

    folder: Path
    names: tuple[str, str, str, str]

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return a command that runs another one inside the cgroup."""
        script = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", script, str(self.folder / "cgroup.procs"), *arguments]

    def killed(self) -> int:
        """Return how many processes the kernel has killed for their memory."""
        lines = (self.folder / self.names[3]).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def anonymous_bytes(self) -> int:
        """Return the memory that cannot be written back to files: what counts towards being killed."""
        names = ("rss", "anon")
        for line in (self.folder / "memory.stat").read_text().splitlines():
            name, value = line.split()
            if name in names:
                return int(value)
        return 0


@contextmanager
def memory_cgroup(name: str, limit_bytes: int) -> Iterator[MemoryCgroup]:
    """Make a memory cgroup, and remove it once its processes have ended.

    Args:
        name: Its name; the test's process id is added.
        limit_bytes: Memory that its processes may take together, without swap.

    Raises:
        NoCgroupError: The machine does not let us.
    """
    for parent, names in ((MOUNT / "memory", VERSION_1), (MOUNT, VERSION_2)):
        folder = parent / f"{name}-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if not (folder / names[0]).exists():
                continue
            (folder / names[0]).write_text(str(limit_bytes))
            if (folder / names[1]).exists():
                (folder / names[1]).write_text("0" if names is VERSION_2 else str(limit_bytes))
            yield MemoryCgroup(folder, names)
            return
        finally:
            folder.rmdir()
    raise NoCgroupError("memory cgroups cannot be made here (root, and a mounted hierarchy)")
