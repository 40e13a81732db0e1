"""Values of files and batch jobs.

Source: OpenAI's API reference for Files and Batches (the project's api-contract, section 2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

DAY_S: Final = 24 * 3600
BATCH_FILE_DAYS: Final = 30


class Purpose(StrEnum):
    """What a file is for."""

    BATCH = "batch"
    USER_DATA = "user_data"
    BATCH_OUTPUT = "batch_output"  # ours, never uploaded


class Status(StrEnum):
    """Where a batch is in its life."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    CANCELLING = "cancelling"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing happens any more."""
        return self in (Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED)


ENDED: Final = tuple(status.value for status in Status if status.is_final)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of somebody's.

    Attributes:
        owner: Id of the key it belongs to.
        created_s: Unix time.
        expires_s: Unix time after which it is gone; None keeps it.
    """

    id: str
    owner: str
    purpose: Purpose
    filename: str
    size_bytes: int
    created_s: int
    expires_s: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an input file.

    Attributes:
        line: From 1; None for the whole file.
    """

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch job.

    Attributes:
        owner: Id of the key it belongs to.
        output_expires_s: Life of its output files from their creation, in seconds; None keeps them as usual.
        times: When each status was reached, Unix time; set once, never cleared.
        expires_s: When its window closes.
        total: Requests in it; 0 until it is known.
        lines_done: Lines of the input whose results are committed.
        output_bytes: Committed size of the output, which is cut back to it after a crash.
        outcome: The final status it is being finalised to.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: Status
    created_s: int
    expires_s: int
    metadata: Mapping[str, str] | None = None
    output_expires_s: int | None = None
    times: Mapping[str, int] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    model: str | None = None
    input_tokens: int = 0
    lines_done: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    outcome: Status | None = None


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Bounds on files and batches.

    Attributes:
        max_file_bytes: Of one upload.
        max_stored_bytes: Of all files of one key.
        max_batch_bytes: Of a batch's input.
        max_lines: Requests of a batch.
        max_inputs: Inputs summed over all its lines.
        max_line_bytes: Of one line.
    """

    max_file_bytes: int = 512 * 2**20
    max_stored_bytes: int = 20 * 2**30
    max_batch_bytes: int = 200 * 2**20
    max_lines: int = 50_000
    max_inputs: int = 50_000
    max_line_bytes: int = 32 * 2**20


@dataclass(frozen=True, slots=True)
class LineResult:
    """What became of one request.

    Attributes:
        status: Of HTTP; 200 goes to the output file, others to the error file.
        body: The response's, JSON.
        tokens: Counted for usage.
    """

    status: int
    body: bytes
    tokens: int = 0


class LineHandler(Protocol):
    """Answers the bodies of lines as the endpoint would."""

    async def answer(
        self, bodies: Sequence[Mapping[str, Any]], *, owner: str
    ) -> Sequence[LineResult]:
        """A result for each body, in order.

        Raises:
            NotReadyError: The server is shutting down.
        """
