"""Where servers have their run-time folders, and how what a killed one has left behind is swept.

A server's folder is locked (flock) for as long as its supervisor lives, however that ends. A folder that nobody has
locked is of a dead server: its processes are ended, and it is deleted.
"""

import json
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nestvec.errors import ConfigError
from nestvec.observability.logs import get_logger
from nestvec.system.durable_files import atomic_write
from nestvec.system.file_locks import try_lock
from nestvec.system.private_files import make_private_folder
from nestvec.system.processes import ProcessId, end_processes

log = get_logger(__name__)

PREFIX: Final = "server-"
# The longest name of a socket in a server's folder, and more.
PROBE: Final = "probe-000.sock"
PROCESSES: Final = "processes.json"
# Processes whose supervisor was killed see that and end by themselves; after so long they are killed.
ORPHAN_TIMEOUT_S: Final = 6.0


def runtime_homes(data_dir: Path) -> list[Path]:
    """Folders that may hold the run-time folders of servers, the best one first.

    No cleaner of temporary files looks into any but the last, which is there for data folders that cannot be written,
    or that cannot have sockets.

    Args:
        data_dir: The data folder.
    """
    homes = []
    # systemd: RuntimeDirectory= of the unit, several ones separated by colons.
    if unit := os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        homes.append(Path(unit))
    session = Path(os.environ.get("XDG_RUNTIME_DIR", "") or os.devnull)
    # It is another user's where one has become this user without logging in.
    if session.is_dir() and not _is_foreign(session):
        homes.append(session / "nestvec")
    homes.append(data_dir / "run")
    homes.append(Path(tempfile.gettempdir()) / f"nestvec-{os.geteuid()}")
    return [home.absolute() for home in homes]


@dataclass(slots=True)
class RuntimeHome:
    """A server's own folder, locked for as long as this object is open.

    Attributes:
        folder: The folder.
        descriptor: The open, locked folder.
        processes: The processes that the server has started.
    """

    folder: Path
    descriptor: int
    processes: tuple[ProcessId, ...] = ()

    @classmethod
    def make(cls, homes: Iterable[Path], room_bytes: int = 0) -> Self:
        """Make a folder in the first of some places that can have one.

        Args:
            homes: The places.
            room_bytes: How much room there must be.

        Raises:
            ConfigError: There is no such place.
        """
        problems = []
        for home in homes:
            try:
                if not _is_foreign(home):
                    # A unit's own folder keeps its mode: something else may be in it.
                    home.mkdir(mode=0o700, parents=True, exist_ok=True)
                    return cls(*_locked_folder(home, room_bytes))
                problems.append(f"{home} is another user's")
            except OSError as error:
                problems.append(f"{home}: {error.strerror or error}")
        raise ConfigError([f"data_dir: no place for run-time files: {'; '.join(problems)}"])

    def note_processes(self, pids: Iterable[int]) -> None:
        """Note which processes the server has, for the server after a killed one.

        Raises:
            OSError: That cannot be written.
        """
        found = (ProcessId.of(pid) for pid in pids)
        self.processes = tuple(process for process in found if process is not None)
        with atomic_write(self.folder / PROCESSES, mode=0o600) as file:
            file.write(json.dumps([process.as_json() for process in self.processes]).encode())

    def keep(self) -> bool:
        """Make the folder and what is in it anew where it has vanished.

        Returns:
            Whether it had vanished.

        Raises:
            OSError: It cannot be made.
        """
        with suppress(FileNotFoundError):
            if _is_same(self.folder, self.descriptor):
                if not (self.folder / PROCESSES).exists() and self.processes:
                    self.note_processes(process.pid for process in self.processes)
                return False
        make_private_folder(self.folder)
        descriptor = _lock(self.folder)
        if descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = descriptor
        self.note_processes(process.pid for process in self.processes)
        return True

    def remove(self) -> None:
        """Delete the folder, and its lock with it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.descriptor)


def sweep(homes: Iterable[Path]) -> None:
    """End what killed servers have left running, and delete their folders; servers that live are left alone."""
    for home in homes:
        for folder in _server_folders(home):
            with _lock_of_dead(folder) as is_dead:
                if is_dead:
                    killed = end_processes(_noted_processes(folder), ORPHAN_TIMEOUT_S)
                    shutil.rmtree(folder, ignore_errors=True)
                    log.warning("dead_server_swept", folder=str(folder), killed_processes=killed)


def _server_folders(home: Path) -> list[Path]:
    """The folders of servers that this user has in a place."""
    with suppress(OSError):
        return [path for path in sorted(home.glob(f"{PREFIX}*")) if not _is_foreign(path)]
    return []


def _is_foreign(path: Path) -> bool:
    """Whether a path is anything but a folder of this user; False where it is absent."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid()


def _locked_folder(home: Path, room_bytes: int) -> tuple[Path, int]:
    """Make a new folder in a place, and lock it.

    Raises:
        OSError: It cannot be made or locked, it cannot have sockets, or there is too little room.
    """
    while True:
        folder = home / f"{PREFIX}{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(str(folder / PROBE))
            (folder / PROBE).unlink()
            _check_room(folder / PROBE, room_bytes)
            descriptor = _lock(folder)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            # The socket module's own error, where the path is too long, has no number.
            raise OSError(error.errno or 0, error.strerror or str(error)) from error
        # Otherwise a server that starts at the same time has taken it for a dead one's.
        if descriptor is not None:
            return folder, descriptor


def _check_room(path: Path, room_bytes: int) -> None:
    """Make a file of that size, where the system can reserve room, and delete it.

    Raises:
        OSError: There is no room for it.
    """
    if room_bytes and hasattr(os, "posix_fallocate"):
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room_bytes)
        path.unlink()


def _lock(folder: Path) -> int | None:
    """Lock a folder; None where another process has it locked, or has deleted it.

    Raises:
        OSError: It cannot be opened, or folders cannot be locked there.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        is_same = try_lock(descriptor) and _is_same(folder, descriptor)
    except FileNotFoundError:
        is_same = False
    except OSError:
        os.close(descriptor)
        raise
    if not is_same:
        os.close(descriptor)
        return None
    return descriptor


def _is_same(folder: Path, descriptor: int) -> bool:
    """Whether a path leads to an open folder.

    Raises:
        FileNotFoundError: The path leads nowhere.
    """
    return os.path.samestat(folder.stat(), os.fstat(descriptor))


@contextmanager
def _lock_of_dead(folder: Path) -> Iterator[bool]:
    """Lock a folder within the block, if the server that made it is dead; gives whether it is."""
    descriptor = None
    with suppress(OSError):
        descriptor = _lock(folder)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _noted_processes(folder: Path) -> list[ProcessId]:
    """The processes that a server has noted; none where its note is lost."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        rows = json.loads((folder / PROCESSES).read_bytes())
        return [ProcessId.from_json(row) for row in rows]
    return []
