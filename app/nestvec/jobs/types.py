"""Values of files and batch jobs, after OpenAI's API reference for Files and Batches.

The fields of `StoredFile` and `BatchJob` are columns of the store, those of `Problem` are keys of a JSON column, and
the values of `Purpose` and `Status` are stored: none of these names may change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from nestvec.system.json_bodies import JsonLimits

DAY_S: Final = 24 * 3600
BATCH_FILE_DAYS: Final = 30


class Purpose(StrEnum):
    """What a file is for."""

    BATCH = "batch"
    USER_DATA = "user_data"
    # Made by the server, never uploaded.
    BATCH_OUTPUT = "batch_output"


class Status(StrEnum):
    """The state of a batch."""

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
        """Whether the batch has ended."""
        return self in (Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED)


ENDED: Final = tuple(status.value for status in Status if status.is_final)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that was uploaded, or that a batch has made.

    Attributes:
        id: Id of the file.
        owner: Id of the key that it belongs to.
        purpose: What it is for.
        filename: Name that it was uploaded with.
        size_bytes: Size of its content.
        created_s: Unix time at which it was made.
        expires_s: Unix time at which it expires; None keeps it.
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
    """A reason why a batch has failed, mostly something wrong with its input file.

    Attributes:
        code: Code of the error, as in OpenAI's API.
        message: What is wrong, for people.
        param: Field of the line that is wrong.
        line: Number of the line, from 1; None for the whole file.
    """

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch job.

    Attributes:
        id: Id of the batch.
        owner: Id of the key that it belongs to.
        endpoint: Path of the API that its lines are sent to.
        input_file_id: Id of its input file.
        completion_window: Time within which it should complete, as the caller gave it.
        status: Its state.
        created_s: Unix time at which it was made.
        expires_s: Unix time at which its completion window closes.
        metadata: Labels of the caller.
        output_expires_s: Life of its output files from their creation, in seconds; None keeps them as usual.
        times: Unix time at which each status was reached; set once, never cleared.
        problems: Why it has failed.
        output_file_id: Id of the file of answers.
        error_file_id: Id of the file of refusals.
        total: Number of its requests; 0 until it is known.
        completed: Number of requests that were answered with 200.
        failed: Number of requests that were answered with an error.
        model: Model that its lines ask for.
        input_tokens: Tokens of the answered requests.
        lines_done: Number of lines of the input whose results are committed.
        output_bytes: Committed size of the output, which is cut back to it after a crash.
        error_bytes: Committed size of the errors, which are cut back to it after a crash.
        outcome: Final status that it gets once it is finalized.
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
        max_file_bytes: Size of one upload.
        max_stored_bytes: Size of all files of one key.
        max_batch_bytes: Size of a batch's input file.
        max_lines: Number of requests of a batch.
        max_inputs: Number of inputs, summed over all requests of a batch.
        max_line_bytes: Size of one line.
        json: What the JSON of a line may be like.
    """

    max_file_bytes: int = 512 * 2**20
    max_stored_bytes: int = 20 * 2**30
    max_batch_bytes: int = 200 * 2**20
    max_lines: int = 50_000
    max_inputs: int = 50_000
    max_line_bytes: int = 32 * 2**20
    json: JsonLimits = field(default_factory=JsonLimits)


@dataclass(frozen=True, slots=True)
class LineResult:
    """The answer to one request.

    Attributes:
        status: HTTP status; answers with 200 go to the output file, others to the error file.
        body: Body of the response, JSON.
        tokens: Tokens that count for the key's usage.
    """

    status: int
    body: bytes
    tokens: int = 0


class LineHandler(Protocol):
    """Answers the bodies of lines as the endpoint would."""

    async def answer(
        self, bodies: Sequence[Mapping[str, Any]], *, owner: str
    ) -> Sequence[LineResult]:
        """Answer requests; gives a result for each body, in order.

        Raises:
            NotReadyError: The server is shutting down.
        """
