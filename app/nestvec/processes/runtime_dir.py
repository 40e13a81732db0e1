"""What the processes of one running server share: a private folder, which is removed with the server."""

import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

SECRET_BYTES: Final = 32
# The role of the first engine process, in metrics and file names; others have a number behind it.
ENGINE_ROLE: Final = "core"


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """The files of one engine process.

    Attributes:
        folder: Folder of the running server.
        role: Role of the process, and the first part of its files' names.
    """

    folder: Path
    role: str

    @property
    def socket(self) -> Path:
        """Path of the socket on which the engine process listens."""
        return self.folder / f"{self.role}.sock"

    @property
    def status_page(self) -> Path:
        """Path of the mapped file in which the engine process notes its heartbeat and what it runs."""
        return self.folder / f"{self.role}.flight"

    @property
    def quarantine(self) -> Path:
        """Path of the file of inputs that ran when an engine process died."""
        return self.folder / f"{self.role}-suspects.json"


@dataclass(frozen=True, slots=True)
class RuntimeDir:
    """The folder of a running server; each process is given it when it is started.

    Attributes:
        folder: The folder, readable by its owner only.
        secret: Keys the digests of inputs, so that what lies in the folder says nothing to anybody else.
    """

    folder: Path
    secret: bytes

    @classmethod
    def make(cls) -> Self:
        """Make a new folder."""
        folder = Path(tempfile.mkdtemp(prefix="nestvec-"))
        runtime_dir = cls(folder, secrets.token_bytes(SECRET_BYTES))
        runtime_dir.metrics.mkdir()
        return runtime_dir

    def engine_files(self, number: int) -> EngineFiles:
        """The files of an engine process, by its number."""
        role = ENGINE_ROLE if number == 0 else f"{ENGINE_ROLE}-{number}"
        return EngineFiles(self.folder, role)

    @property
    def is_serving(self) -> Path:
        """Path of the file that is there once the first HTTP process can answer.

        Before it is there, no other HTTP process takes connections.
        """
        return self.folder / "serving"

    @property
    def buckets(self) -> Path:
        """Path of the file with what is left of the rates of keys."""
        return self.folder / "buckets"

    @property
    def metrics(self) -> Path:
        """Path of the folder in which all processes count."""
        return self.folder / "metrics"

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
