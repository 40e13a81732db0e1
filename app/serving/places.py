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

    @property
    def socket(self) -> Path:
        """Where the core listens."""
        return self.folder / "core.sock"

    @property
    def flight(self) -> Path:
        """What the core notes of itself."""
        return self.folder / "core.flight"

    @property
    def suspects(self) -> Path:
        """Inputs that ran when the core died."""
        return self.folder / "suspects.json"

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
