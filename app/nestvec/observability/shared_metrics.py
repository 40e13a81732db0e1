"""Metrics of several processes as one.

The processes of a server share a folder of mapped files (prometheus-client's multiprocess mode), so that any of them
answers a scrape for all, and what a killed process had counted is not lost. A process whose file is deleted under it
still has in memory all that it counted, and writes it down again.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, multiprocess, values
from prometheus_client.mmap_dict import MmapedDict
from typing_extensions import override

from nestvec.system.durable_files import atomic_write
from nestvec.system.private_files import make_private_folder

# prometheus-client's own variable.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
# A file has its room on the disk from the start: a mapped page that a full disk has no room for kills its process.
FILE_BYTES: Final = 2**18
# What the files of one process take at first: one for each kind of metric and way to add up its values.
PROCESS_BYTES: Final = 8 * FILE_BYTES
# At most so many bytes of a value beside its key.
ENTRY_BYTES: Final = 32


class CounterFile(MmapedDict):
    """A mapped file of values that can be written down again where it was deleted.

    Args:
        filename: The file; made where it is absent.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, filename: str, *, read_mode: bool = False) -> None:
        if not read_mode:
            _make_file(filename)
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call] # the library has not typed it
        self._growing = threading.Lock()
        if not read_mode:
            _files.append(self)

    @override
    def _init_value(self, key: str) -> None:
        """Make room for one more value; not while the file is written down.

        Raises:
            OSError: The disk has no room for it.
        """
        with self._growing:
            size_bytes = self._capacity
            while size_bytes < self._used + len(key.encode()) + ENTRY_BYTES:
                size_bytes *= 2
            if size_bytes > self._capacity:
                _reserve(self._f.fileno(), size_bytes)
            super()._init_value(key)  # type: ignore[no-untyped-call] # the library has not typed it

    def keep(self) -> None:
        """Write the values down again where the file is gone.

        Values that other threads set at this very moment are written when they are set next.

        Raises:
            OSError: They cannot be written.
        """
        path = Path(self._fname)
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(self._f.fileno())):
                return
        make_private_folder(path.parent)
        with self._growing:
            with atomic_write(path, mode=0o600) as file:
                file.write(self._m)
            anew = MmapedDict(self._fname)  # type: ignore[no-untyped-call] # the library has not typed it
            self.__dict__.update(vars(anew))


# Of this process.
_files: Final[list[CounterFile]] = []


def share_metrics(folder: Path, role: str) -> None:
    """Count in a folder that several processes share; to be called before any metric is made.

    Args:
        folder: Folder of the running server, made anew with it.
        role: Role of this process; a process that takes the place of a dead one goes on with its counters.

    Raises:
        OSError: The folder cannot be made.
    """
    make_private_folder(folder)
    os.environ[FOLDER_VARIABLE] = str(folder)
    # Where the library makes its files.
    vars(values)["MmapedDict"] = CounterFile
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: role)  # type: ignore[no-untyped-call] # the library has not typed it


def forget_gauges(folder: Path, role: str) -> None:
    """Drop the gauges of a process that has died: what they said no longer holds.

    Their files keep their room on the disk, which the next process of the role might not get again.
    """
    for path in folder.glob(f"gauge_live*_{role}.db"):
        with suppress(OSError), path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))


def is_shared() -> bool:
    """Whether this process counts in a shared folder."""
    return FOLDER_VARIABLE in os.environ


def keep_files() -> None:
    """Write down again what this process has counted, where its files are gone; does nothing where it is alone."""
    with suppress(OSError):  # the supervisor logs that there is no folder
        for file in _files:
            file.keep()


def registry_of_all(own: CollectorRegistry) -> CollectorRegistry:
    """A registry of what all processes of the server have counted.

    Args:
        own: What this process has counted, which must do where the folder is gone and cannot be made.
    """
    registry = CollectorRegistry()
    try:
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # the library has not typed it
    except ValueError:
        return own
    return registry


def summed_gauge(registry: CollectorRegistry, name: str, text: str) -> Gauge:
    """A gauge whose values of several processes add up."""
    return Gauge(name, text, registry=registry, multiprocess_mode="livesum")


def _make_file(filename: str) -> None:
    """Make a file of zeros that only its owner may read, where there is none.

    Raises:
        OSError: It cannot be made, or there is no room for it.
    """
    descriptor = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not os.fstat(descriptor).st_size:
            _reserve(descriptor, FILE_BYTES)
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, size_bytes: int) -> None:
    """Give an open file its room on the disk, as zeros, where the system can do so.

    Raises:
        OSError: There is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
