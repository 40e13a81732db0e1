"""What the processes of one running server share: a private folder for what needs a name, and files without a name.

In the folder are sockets, counters and suspects. Should a cleaner take it away while the server runs, each process
makes anew what is its own. What must not be lost with it (heartbeats, the journal of what runs, the rates of keys) has
no name.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nestvec.system.memory_files import MemoryFile
from nestvec.system.private_files import make_private_folder

SECRET_BYTES: Final = 32
# The role of the first engine process, in metrics and file names; others have a number behind it.
ENGINE_ROLE: Final = "core"


def engine_role(number: int) -> str:
    """The role of an engine process, in metrics, logs and file names."""
    return ENGINE_ROLE if number == 0 else f"{ENGINE_ROLE}-{number}"


def http_role(number: int) -> str:
    """The role of an HTTP process, in metrics and logs."""
    return f"front-{number}"


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """The files of one engine process.

    Attributes:
        folder: Folder of the running server.
        role: Role of the process, and the first part of its files' names.
        memory: What it notes of itself: a status page and the journal of what runs.
    """

    folder: Path
    role: str
    memory: MemoryFile

    @property
    def socket(self) -> Path:
        """Path of the socket on which the engine process listens."""
        return self.folder / f"{self.role}.sock"

    @property
    def status_page(self) -> Path:
        """Path of the mapped file in which the engine process notes its heartbeat and what it runs."""
        return self.memory.path

    @property
    def quarantine(self) -> Path:
        """Path of the file of inputs that ran when an engine process died."""
        return self.folder / f"{self.role}-suspects.json"


@dataclass(frozen=True, slots=True)
class RuntimeDir:
    """What a running server shares; each process is given it when it is started.

    Attributes:
        folder: The folder, readable by its owner only.
        secret: Keys the digests of inputs, so that what lies in the folder says nothing to anybody else.
        engine_memory: For each engine process, what it notes of itself.
        http_memory: For each HTTP process, its heartbeat.
        bucket_memory: What is left of the rates of keys.
        month_memory: What keys have used this month.
        serving_memory: Empty until the first HTTP process can answer.
    """

    folder: Path
    secret: bytes
    engine_memory: tuple[MemoryFile, ...]
    http_memory: tuple[MemoryFile, ...]
    bucket_memory: MemoryFile
    month_memory: MemoryFile
    serving_memory: MemoryFile

    @classmethod
    def make(cls, folder: Path, *, engines: int, http_processes: int) -> Self:
        """Make what a server of so many processes shares.

        Args:
            folder: Its folder, made where it is absent.
            engines: How many engine processes there are.
            http_processes: How many HTTP processes there are.

        Raises:
            OSError: The folder cannot be made.
        """
        engine_roles = [engine_role(number) for number in range(engines)]
        http_roles = [http_role(number) for number in range(http_processes)]
        runtime_dir = cls(
            folder,
            secrets.token_bytes(SECRET_BYTES),
            tuple(MemoryFile.make(f"nestvec-{role}") for role in engine_roles),
            tuple(MemoryFile.make(f"nestvec-{role}") for role in http_roles),
            MemoryFile.make("nestvec-buckets"),
            MemoryFile.make("nestvec-months"),
            MemoryFile.make("nestvec-serving"),
        )
        runtime_dir.ensure()
        return runtime_dir

    def ensure(self) -> None:
        """Make the folders that are absent.

        Raises:
            OSError: They cannot be made.
        """
        make_private_folder(self.folder)
        make_private_folder(self.metrics)

    def engine_files(self, number: int) -> EngineFiles:
        """The files of an engine process, by its number."""
        return EngineFiles(self.folder, engine_role(number), self.engine_memory[number])

    def http_status_page(self, number: int) -> Path:
        """Path of the mapped file in which an HTTP process notes its heartbeat."""
        return self.http_memory[number].path

    @property
    def is_serving(self) -> bool:
        """Whether the first HTTP process can answer: before that no other one takes connections."""
        return self.serving_memory.size_bytes > 0

    def note_serving(self) -> None:
        """Note that the first HTTP process can answer."""
        self.serving_memory.resize(1)

    @property
    def metrics(self) -> Path:
        """Path of the folder in which all processes count."""
        return self.folder / "metrics"

    def close(self) -> None:
        """Close the files without a name, which end with the last process that has them."""
        files = (self.bucket_memory, self.month_memory, self.serving_memory)
        for file in (*self.engine_memory, *self.http_memory, *files):
            file.close()
