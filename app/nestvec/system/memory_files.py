"""Files without a name, for what processes of one server map together: no cleaner of folders finds them.

They end with the last process that has them open, however that one ends, and take no room on a disk.
"""

import os
import tempfile
from collections.abc import Callable
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Final, Protocol, Self

from typing_extensions import override

# Where a process finds its own open files by their numbers: on Linux, and elsewhere.
OPEN_FILES: Final = (Path("/proc/self/fd"), Path("/dev/fd"))


class _Inherited(Protocol):
    """What `DupFd` makes of a descriptor while a process is started."""

    def detach(self) -> int:
        """Return the descriptor's number in the new process."""


class MemoryFile:
    """An open file without a name; it may be passed to a process that `multiprocessing` starts.

    Args:
        descriptor: The open file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def make(cls, name: str) -> Self:
        """Make an empty file.

        Args:
            name: What it is called in `/proc`; it need not be unique.

        Raises:
            OSError: It cannot be made.
        """
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create(name))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    @property
    def path(self) -> Path:
        """A path under which this process, and no other, may open the file once more."""
        folder = next((folder for folder in OPEN_FILES if folder.is_dir()), OPEN_FILES[0])
        return folder / str(self._descriptor)

    @property
    def size_bytes(self) -> int:
        """The file's size."""
        return os.fstat(self._descriptor).st_size

    def resize(self, size_bytes: int) -> None:
        """Cut the file, or lengthen it with zeros."""
        os.ftruncate(self._descriptor, size_bytes)

    def close(self) -> None:
        """Close it here; what has mapped it goes on."""
        os.close(self._descriptor)

    @override
    def __reduce__(self) -> tuple[Callable[[_Inherited], "MemoryFile"], tuple[_Inherited]]:
        """Pass the open file itself to a process that is being started."""
        return _inherit, (DupFd(self._descriptor),)


def _inherit(inherited: _Inherited) -> MemoryFile:
    """Take over a file in the process that was started with it."""
    descriptor = inherited.detach()
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - its one way
    return MemoryFile(descriptor)
