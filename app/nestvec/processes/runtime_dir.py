"""What the processes of one running server share: a private folder, gone with it."""

import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

SECRET_BYTES: Final = 32
CORE: Final = "core"


@dataclass(frozen=True, slots=True)
class CorePlaces:
    """What belongs to one core.

    Attributes:
        role: Of its process, and the first part of its files' names.
    """

    folder: Path
    role: str

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / f"{self.role}.sock"

    @property
    def flight(self) -> Path:
        """What it notes of itself."""
        return self.folder / f"{self.role}.flight"

    @property
    def suspects(self) -> Path:
        """Inputs that ran when it died."""
        return self.folder / f"{self.role}-suspects.json"


@dataclass(frozen=True, slots=True)
class Places:
    """Handed to each process when it is started.

    Attributes:
        folder: Readable by its owner only.
        secret: Keys digests of inputs, so that what lies in the folder says nothing to anybody else.
    """

    folder: Path
    secret: bytes

    @classmethod
    def make(cls) -> Self:
        """A new folder."""
        made = cls(Path(tempfile.mkdtemp(prefix="nestvec-")), secrets.token_bytes(SECRET_BYTES))
        made.metrics.mkdir()
        return made

    def of_core(self, number: int) -> "CorePlaces":
        """What is one core's own."""
        return CorePlaces(self.folder, CORE if number == 0 else f"{CORE}-{number}")

    @property
    def is_serving(self) -> Path:
        """There once the first front can answer: before it no other takes connections."""
        return self.folder / "serving"

    @property
    def buckets(self) -> Path:
        """What is left of the rates of keys."""
        return self.folder / "buckets"

    @property
    def metrics(self) -> Path:
        """Where all count."""
        return self.folder / "metrics"

    def remove(self) -> None:
        """All of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
