"""Reports of callers on the disk: a file for each, so that every HTTP process of a server sees them all.

What callers sent is not among it: texts stay in the memory of the process that makes the report. A process that makes
one touches its file; a report whose file was not touched for `STALE_S` has lost its process.
"""

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from nestvec.errors import NotFoundError, StoreError
from nestvec.system.durable_files import atomic_write
from nestvec.system.json_files import load_json
from nestvec.system.private_files import make_private_folder

ID: Final = re.compile(r"report_[0-9a-f]{32}")
STALE_S: Final = 60.0
KEPT_S: Final = 7 * 24 * 3600.0
MAX_KEPT: Final = 200
INTERRUPTED: Final = (
    "the server process that made this report has ended; nothing of it is kept, send it again"
)


class ReportStatus(StrEnum):
    """The state of a report."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the report has ended."""
        return self not in (ReportStatus.QUEUED, ReportStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """A report that was asked for; its fields are those of its file.

    Attributes:
        id: Its id.
        owner: Id of the key that asked for it.
        report: Which report.
        model: Name of the model, as the caller wrote it.
        status: Its state.
        created_s: When it was asked for, in seconds since the epoch.
        started_s: When it began; None before.
        ended_s: When it ended; None before.
        embedded_texts: How many texts have been embedded.
        tokens: How many tokens that took.
        error: Code and message of what went wrong; None where nothing has.
        result: What was found; None before.
    """

    id: str
    owner: str
    report: str
    model: str
    status: str
    created_s: float
    started_s: float | None = None
    ended_s: float | None = None
    embedded_texts: int = 0
    tokens: int = 0
    error: Mapping[str, str] | None = None
    result: Mapping[str, Any] | None = None


class ReportFolder:
    """The folder of reports; its methods block.

    Args:
        folder: Made when the first report is asked for.
        clock: Unix time in seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock
        # Drafts of one process have one name; a note may still be written while its report ends.
        self._writing = threading.RLock()

    def new(self, owner: str, report: str, model: str) -> ReportRecord:
        """Note a new report.

        Raises:
            StoreError: The folder cannot be written.
        """
        record = ReportRecord(
            id=f"report_{secrets.token_hex(16)}",
            owner=owner,
            report=report,
            model=model,
            status=ReportStatus.QUEUED,
            created_s=self._clock(),
        )
        try:
            make_private_folder(self.folder)
        except OSError as error:
            raise StoreError("Reports are off: the server cannot write its data folder.") from error
        self._forget_old()
        self.write(record)
        return record

    def write(self, record: ReportRecord) -> None:
        """Write a report as it is now.

        Raises:
            StoreError: The disk is full or read-only.
        """
        try:
            with self._writing, atomic_write(self._path(record.id), mode=0o600) as file:
                file.write(json.dumps(asdict(record)).encode())
        except OSError as error:
            raise StoreError("The report could not be written: the disk is full.") from error

    def note(self, record: ReportRecord) -> None:
        """Write how far a report is, unless it has gone on to another status meanwhile.

        Raises:
            StoreError: The disk is full or read-only.
        """
        with self._writing:
            now = self._read(self._path(record.id))
            if now is not None and now.status == record.status:
                self.write(record)

    def end(self, record: ReportRecord, status: ReportStatus, **changes: Any) -> ReportRecord:  # noqa: ANN401
        """Write a report that has ended, and return it."""
        ended = replace(record, status=status, ended_s=self._clock(), **changes)
        self.write(ended)
        with suppress(OSError):
            self._cancel_path(record.id).unlink(missing_ok=True)
        return ended

    def find(self, report_id: str, owner: str) -> ReportRecord:
        """Return a report of a key.

        Raises:
            NotFoundError: The key has no such report.
        """
        record = self._read(self._path(report_id)) if ID.fullmatch(report_id) else None
        if record is None or record.owner != owner:
            raise NotFoundError(f"No report with the id '{report_id[:64]}'.", param="report_id")
        return record

    def of_owner(self, owner: str) -> list[ReportRecord]:
        """Return a key's reports, newest first."""
        found = (self._read(path) for path in self._paths())
        mine = [record for record in found if record is not None and record.owner == owner]
        return sorted(mine, key=lambda record: record.created_s, reverse=True)

    def touch(self, report_id: str) -> None:
        """Note that a report's process is alive."""
        with suppress(OSError):
            self._path(report_id).touch()

    def ask_to_stop(self, report_id: str) -> None:
        """Ask whichever process makes a report to stop.

        Raises:
            StoreError: The folder cannot be written.
        """
        try:
            self._cancel_path(report_id).touch(mode=0o600)
        except OSError as error:
            raise StoreError("The server cannot write its data folder.") from error

    def is_to_stop(self, report_id: str) -> bool:
        """Whether a report was asked to stop."""
        return self._cancel_path(report_id).exists()

    def _read(self, path: Path) -> ReportRecord | None:
        """Read a report; None where there is none, or the file is not whole. One without a process has failed."""
        try:
            record = ReportRecord(**load_json(path.read_text("utf-8")))
            touched_s = path.stat().st_mtime
        except (OSError, ValueError, TypeError):
            return None
        is_lost = self._clock() - touched_s > STALE_S
        if ReportStatus(record.status).is_final or not is_lost:
            return record
        error = {"code": "interrupted", "message": INTERRUPTED}
        return replace(record, status=ReportStatus.FAILED, ended_s=touched_s, error=error)

    def _forget_old(self) -> None:
        """Remove reports that have had their time, and the oldest of too many."""
        aged: list[tuple[float, Path]] = []
        for path in self._paths():
            with suppress(OSError):
                aged.append((path.stat().st_mtime, path))
        aged.sort(reverse=True)
        for number, (touched_s, path) in enumerate(aged):
            if number >= MAX_KEPT - 1 or self._clock() - touched_s > KEPT_S:
                with suppress(OSError):
                    path.unlink()
                    self._cancel_path(path.stem).unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return [path for path in self.folder.glob("report_*.json") if ID.fullmatch(path.stem)]

    def _path(self, report_id: str) -> Path:
        return self.folder / f"{report_id}.json"

    def _cancel_path(self, report_id: str) -> Path:
        return self.folder / f"{report_id}.cancel"
