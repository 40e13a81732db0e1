"""Keeps the graph that was opened last: steps of a preparation that follow each other mostly run the same one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from nestvec.engine.backend import Backend, BackendFactory, BackendOptions
from nestvec.engine.types import Layout


class _GraphKey(NamedTuple):
    """What makes two openings the same; the file by its inode, as an artefact's folder is renamed once it is whole."""

    device: int
    inode: int
    changed_ns: int
    layout: Layout
    options: BackendOptions


@dataclass(slots=True)
class BackendCache:
    """Opens graphs, and gives the last one again to whoever asks for the same.

    No more than one is open, since a large model's weights are in memory once for each.

    Attributes:
        open_backend: Opens a graph.
    """

    open_backend: BackendFactory
    _key: _GraphKey | None = None
    _backend: Backend | None = field(default=None, repr=False)

    def open(self, path: Path, layout: Layout, options: BackendOptions) -> Backend:
        """Return a graph's backend, which callers do not close.

        Raises:
            FormatError: The graph cannot be read, or its inputs and outputs are not what the layout says.
            ModelMemoryError: It does not fit into the GPU's memory.
            ProviderError: The runtime or the device is missing, or does not start.
        """
        key = _key_of(path, layout, options)
        if self._backend is not None and key is not None and key == self._key:
            return self._backend
        self.close()
        self._backend = self.open_backend(path, layout, options)
        self._key = key
        return self._backend

    def close(self) -> None:
        """Close what is open: before memory is wanted for something else."""
        if self._backend is not None:
            self._backend.close()
        self._backend = self._key = None


@contextmanager
def cached_backends(open_backend: BackendFactory) -> Iterator[BackendCache]:
    """Give a cache that closes what it has open at the end."""
    cache = BackendCache(open_backend)
    try:
        yield cache
    finally:
        cache.close()


def _key_of(path: Path, layout: Layout, options: BackendOptions) -> _GraphKey | None:
    """Return what a graph is recognized by; None where there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _GraphKey(stat.st_dev, stat.st_ino, stat.st_mtime_ns, layout, options)
