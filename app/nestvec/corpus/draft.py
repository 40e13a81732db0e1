"""An output in the making: a folder beside its place, from which the same command goes on after an interruption.

After each chunk the output is synced to disk and then its size is noted. Whatever happens, the next run cuts the
output back to the size noted last and goes on with the record after it: none is lost, none comes twice.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from nestvec.errors import ArtefactError
from nestvec.system.durable_files import sync
from nestvec.system.json_text import load_json

PROGRESS: Final = "progress.json"
LOCK: Final = "lock"


@dataclass(slots=True)
class Progress:
    """What is safe on disk.

    Attributes:
        records: How many, from the first.
        offsets: Size of each of the writer's files, by its own names.
    """

    records: int = 0
    tokens: int = 0
    truncated: int = 0
    offsets: dict[str, int] = field(default_factory=dict)


class Draft:
    """Holds one output until it is whole.

    Args:
        target: Where the output goes; the draft's folder lies beside it.
        job: Everything that decides the output; a draft of another job is thrown away.

    Raises:
        ArtefactError: Another process works on the same output.
        OSError: The folder cannot be written.
    """

    def __init__(self, target: Path, job: Mapping[str, Any]) -> None:
        self._target = target
        self._job = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
        self.folder = target.parent / f".{target.name}.embed"
        self.folder.mkdir(exist_ok=True)
        self._lock: IO[bytes] = (self.folder / LOCK).open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ArtefactError(f"{target}: another process is writing it") from None
        self.progress = Progress()
        if (found := self._read()) is None:
            self.forget()
        else:
            self.progress = found

    @property
    def path(self) -> Path:
        """Where to write meanwhile."""
        return self.folder / self._target.name

    def commit(self, progress: Progress) -> None:
        """Note what has been synced."""
        draft = self.folder / f"{PROGRESS}.tmp"
        with draft.open("wb") as file:
            file.write(json.dumps({"job": self._job, **asdict(progress)}).encode())
            sync(file)
        draft.replace(self.folder / PROGRESS)
        self.progress = progress

    def publish(self, files: Sequence[Path]) -> None:
        """Move finished files of the draft to their places, in this order."""
        for file in files:
            file.replace(self._target.parent / file.name)
        self.discard()

    def forget(self) -> None:
        """Begin anew."""
        for file in self.folder.iterdir():
            if file.name != LOCK:
                file.unlink()
        self.progress = Progress()

    def discard(self) -> None:
        """Leave nothing."""
        self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self, *, keeps: bool) -> None:
        """Leave what a later run can go on from; nothing where none can, or nothing was committed."""
        if keeps and self.progress.records:
            self._lock.close()
        else:
            self.discard()

    def _read(self) -> Progress | None:
        """What an earlier run of the same job committed; None where there is no such run."""
        try:
            found = load_json((self.folder / PROGRESS).read_text("utf-8"))
            return Progress(**found) if found.pop("job") == self._job else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
