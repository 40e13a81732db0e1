"""The file of keys as a running server sees it: read again when it changes, and closed where it cannot be read.

Once there are keys, that there are none is never taken from the absence of their file: it may be a volume that was not
mounted, or a disk that fails. That there are keys is remembered beside the data, and by the processes of a server.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nestvec.errors import ConfigError
from nestvec.keys.records import KeyFile, KeyRecord
from nestvec.system.private_files import make_private_folder

log = logging.getLogger(__name__)

# Its presence says that this server has had a file of keys.
MARKER_NAME: Final = "keys-required"
MARKER_TEXT: Final = (
    "This server has had API keys: while their file cannot be read, it lets nobody in.\n"
    "To let callers in without keys again, remove the file of keys and this file, and restart the server.\n"
)
# The same for keys that the settings gave to a server that others could reach.
SETTINGS_MARKER_NAME: Final = "api-keys-required"
SETTINGS_MARKER_TEXT: Final = (
    "This server has had API keys in its settings: where it finds none, it does not start.\n"
    "To let callers in without keys again, remove this file and restart the server.\n"
)


class KeysMarker:
    """Remembers that there are keys, in each of some folders that can be written.

    Args:
        folders: The data folder; of several processes also the folder that they share while they run.
        name: Name of the file that says so.
        text: What it holds, for people.
    """

    def __init__(
        self, folders: Sequence[Path] = (), *, name: str = MARKER_NAME, text: str = MARKER_TEXT
    ) -> None:
        self._paths = [folder / name for folder in folders]
        self._text = text

    @property
    def is_set(self) -> bool:
        """Whether any of the folders says that there are keys."""
        return any(os.path.lexists(path) for path in self._paths)

    @property
    def path(self) -> Path | None:
        """The file that says so and outlives the server, for messages; None where none is set."""
        return next((path for path in self._paths if os.path.lexists(path)), None)

    def set(self) -> None:
        """Remember that there are keys."""
        for path in self._paths:
            if os.path.lexists(path):
                continue
            try:
                make_private_folder(path.parent)
                path.touch(mode=0o600)  # which needs no room: the disk may be full
                path.write_text(self._text)
            except OSError as error:
                if not os.path.lexists(path):
                    log.warning("%s cannot be written (%s)", path, error.strerror)


class KeyFileWatch:
    """Knows the keys of a file, or why it cannot.

    Args:
        path: The file; None for none.
        is_named: Whether the settings name it: then it has to be there.
        marker: Remembers that it has been there.

    Attributes:
        records: The keys by their ids, as they were when the file could be read last.
        problem: Why the file cannot be read; "" where it can, or where there never was one.
    """

    def __init__(self, path: Path | None, *, is_named: bool, marker: KeysMarker) -> None:
        self.records: dict[str, KeyRecord] = {}
        self.problem = ""
        self._path, self._marker = path, marker
        self._is_required = is_named and path is not None
        self._version: tuple[int, int, int] | None = None

    @property
    def is_required(self) -> bool:
        """Whether callers need a key, since there is a file of keys, was one, or has to be one."""
        return self._is_required

    def reload(self) -> None:
        """Read the file if it has changed, or could not be read before."""
        if self._path is None:
            return
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version == self._version:
                return
            self.records = KeyFile.read(self._path).records
        except FileNotFoundError:
            self._note_missing(self._path)
        except OSError as error:
            self._marker.set()
            self._close(f"keys_file: {self._path} cannot be read ({error.strerror})")
        except ConfigError as error:
            self._marker.set()
            self._close(error.message)
        else:
            self._note_read(version)

    def _note_read(self, version: tuple[int, int, int]) -> None:
        """Note that the file was read, in the version that it had before."""
        if self.problem:
            log.warning("keys_file: %s is read again; its keys are good", self._path)
        self._version, self.problem, self._is_required = version, "", True
        self._marker.set()

    def _note_missing(self, path: Path) -> None:
        self._is_required = self._is_required or self._marker.is_set
        if self._is_required:
            self._close(missing_problem(path, self._marker))

    def _close(self, problem: str) -> None:
        """Let none of the file's keys in from now on, and say so once for each reason."""
        self._version, self._is_required = None, True
        if problem != self.problem:
            log.error("no key of the file is let in: %s", problem)
        self.problem = problem


def missing_problem(path: Path, marker: KeysMarker) -> str:
    """Tell that a file of keys is missing, and the ways out."""
    problem = f"keys_file: {path} does not exist: restore it (or mount it), or make a first key with 'nestvec keys add'"
    seen = marker.path
    return problem if seen is None else f"{problem}; to serve without keys again remove {seen}"


def problems_at_start(path: Path, *, is_named: bool, data_dir: Path) -> tuple[str, ...]:
    """Tell why a server must not start over a file of keys; nothing where there is one, or was never any.

    Args:
        path: The file.
        is_named: Whether the settings name it.
        data_dir: Where it is remembered that there are keys.
    """
    marker = KeysMarker((data_dir,))
    try:
        if path.exists():
            KeyFile.read(path)
        elif is_named or marker.is_set:
            return (missing_problem(path, marker),)
    except ConfigError as error:
        return error.problems
    except OSError as error:
        return (f"keys_file: {path} cannot be read ({error.strerror})",)
    return ()


def settings_problems(*, has_keys: bool, has_file: bool, data_dir: Path) -> tuple[str, ...]:
    """Remember that a server has keys of its settings, or tell why it must not start without any.

    A variable that was not set this time must not open a server that others reach.

    Args:
        has_keys: Whether the settings give keys.
        has_file: Whether there is a file of keys.
        data_dir: Where it is remembered.
    """
    marker = KeysMarker((data_dir,), name=SETTINGS_MARKER_NAME, text=SETTINGS_MARKER_TEXT)
    if has_keys:
        marker.set()
    elif marker.is_set and not has_file:
        return (
            f"api_keys: this server has had keys and now has none: set them, or make one with 'nestvec keys add'; to "
            f"serve without keys again remove {marker.path}",
        )
    return ()
