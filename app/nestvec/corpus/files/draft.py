"""An unfinished output: a folder beside its target, from which the same command resumes after an interruption.

After each chunk the output is synced to disk and then its size is noted. Whatever happens, the next run truncates the
output to the size noted last and resumes with the record after it: none is lost, none comes twice.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from nestvec.errors import ArtefactError
from nestvec.system.durable_files import atomic_write
from nestvec.system.file_locks import try_lock
from nestvec.system.json_files import load_json

PROGRESS: Final = "progress.json"
# The files that are being moved beside the target, in their order.
PUBLISHED: Final = "published.json"
LOCK: Final = "lock"


@dataclass(slots=True)
class Progress:
    """What is safe on disk; field names are the keys of the file that it is kept in.

    Attributes:
        records: Number of records, from the first.
        rows: Number of rows that were written of them.
        tokens: Number of their tokens.
        truncated: Number of records that were cut to the model's length.
        offsets: Size of each of the writer's files in bytes, by the writer's name for it.
    """

    records: int = 0
    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    offsets: dict[str, int] = field(default_factory=dict)


class Draft:
    """Holds an output until it is whole.

    Args:
        target: Path of the output; the draft's folder lies beside it.
        job: Everything that decides the output; a draft of another job is thrown away.

    Raises:
        ArtefactError: Another process writes the same output.
        OSError: The folder cannot be written.
    """

    def __init__(self, target: Path, job: Mapping[str, Any]) -> None:
        self._target = target
        self._job = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
        self.folder = target.parent / f".{target.name}.embed"
        self.folder.mkdir(exist_ok=True)
        self._lock: IO[bytes] = (self.folder / LOCK).open("ab")
        if not try_lock(self._lock):
            self._lock.close()
            raise ArtefactError(f"{target}: another process is writing it")
        self.progress = Progress()
        self._publish_rest()
        if (progress := self._read()) is None:
            self.reset()
        else:
            self.progress = progress

    @property
    def path(self) -> Path:
        """Path to write the output to until it is published."""
        return self.folder / self._target.name

    def commit(self, progress: Progress) -> None:
        """Note what has been synced: a later run resumes from there."""
        with atomic_write(self.folder / PROGRESS) as file:
            file.write(json.dumps({"job": self._job, **asdict(progress)}).encode())
        self.progress = progress

    def publish(self, files: Sequence[Path]) -> None:
        """Move finished files of the draft beside the target, in this order, and remove the draft.

        An interruption leaves a note of them, by which the next run moves the rest: files that belong together are
        never of two runs.
        """
        with atomic_write(self.folder / PUBLISHED) as note:
            note.write(json.dumps([file.name for file in files]).encode())
        self._publish_rest()
        self.discard()

    def _publish_rest(self) -> None:
        """Move what a note says is finished, and drop the rest of the draft."""
        try:
            names = load_json((self.folder / PUBLISHED).read_text("utf-8"))
        except (OSError, ValueError):
            return
        for name in names:
            if (file := self.folder / name).exists():
                file.replace(self._target.parent / name)
        self.reset()

    def reset(self) -> None:
        """Drop everything that an earlier run left."""
        for file in self.folder.iterdir():
            if file.name != LOCK:
                file.unlink()
        self.progress = Progress()

    def discard(self) -> None:
        """Remove the draft's folder."""
        self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self, *, keeps: bool) -> None:
        """Leave what a later run can resume from; nothing where none can, or nothing was committed."""
        if keeps and self.progress.records:
            self._lock.close()
        else:
            self.discard()

    def _read(self) -> Progress | None:
        """Read what an earlier run of the same job committed; None where there was no such run."""
        try:
            fields = load_json((self.folder / PROGRESS).read_text("utf-8"))
            return Progress(**fields) if fields.pop("job") == self._job else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
