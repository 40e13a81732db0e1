"""Values of files and batch jobs, after OpenAI's API reference for Files and Batches.

The fields of `StoredFile` and `BatchJob` are columns of the store, those of `Problem` are keys of a JSON column, and
the values of `Purpose` and `Status` are stored: none of these names may change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from nestvec.errors import NestvecError
from nestvec.system.json_bodies import JsonLimits

DAY_S: Final = 24 * 3600
BATCH_FILE_DAYS: Final = 30
# To charge a chunk before it has run: JSON has about so many bytes a token.
BYTES_PER_TOKEN: Final = 4


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
        chunks: Number of chunks that its input was cut into; None until it has been.
        reserved_bytes: What its answers are expected to take at most; kept free for them among the owner's files.
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
    chunks: int | None = None
    reserved_bytes: int = 0

    def refusal(self, now_s: float) -> Status | None:
        """Return why lines that have not run yet never will: "cancelled" or "expired"; None where they will."""
        if self.status is Status.CANCELLING:
            return Status.CANCELLED
        return Status.EXPIRED if now_s >= self.expires_s else None


@dataclass(frozen=True, slots=True)
class BatchChunk:
    """A run of lines of a batch's input file.

    Attributes:
        batch_id: Id of the batch.
        number: Its place among the batch's chunks, from 0.
        first_request: How many requests of the batch are in the chunks before it.
        requests: How many it has.
        offset_bytes: Where its first line begins in the input file.
        size_bytes: Size of its lines.
        attempts: How often it was claimed before.
    """

    batch_id: str
    number: int
    first_request: int
    requests: int
    offset_bytes: int
    size_bytes: int
    attempts: int = 0

    @property
    def charged_tokens(self) -> int:
        """What its owner is charged when it is claimed."""
        return self.size_bytes // BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What became of a chunk.

    Attributes:
        output_part: Name of the object with the answers; None where there are none.
        output_bytes: Its size.
        error_part: Name of the object with the refusals; None where there are none.
        error_bytes: Its size.
        completed: Requests that were answered with 200.
        failed: Requests that were answered with an error.
        input_tokens: Tokens of the answered requests.
        refused: Why its lines never ran, "cancelled" or "expired"; None where they did.
    """

    output_part: str | None = None
    output_bytes: int = 0
    error_part: str | None = None
    error_bytes: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    refused: str | None = None

    def part(self, kind: str) -> tuple[str | None, int]:
        """Name and size of the part with the "output" or with the "errors"."""
        if kind == "output":
            return self.output_part, self.output_bytes
        return self.error_part, self.error_bytes


@dataclass(frozen=True, slots=True)
class CheckedInput:
    """What a batch's input was found to be.

    Attributes:
        total: Number of its requests.
        model: Model that they ask for.
        reserved_bytes: What the answers are expected to take at most.
        chunks: What the input was cut into.
        done: What became of the first chunk, where a version without chunks had answered so many lines already.
    """

    total: int
    model: str | None
    reserved_bytes: int
    chunks: Sequence[BatchChunk]
    done: ChunkResult | None = None


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Bounds on files and batches.

    Attributes:
        max_file_bytes: Size of one upload.
        max_stored_bytes: Size of all files of one key, uploads under way and answers to come included.
        max_unfinished_batches: Number of batches of one key that have not ended.
        max_batch_bytes: Size of a batch's input file.
        max_lines: Number of requests of a batch.
        max_inputs: Number of inputs, summed over all requests of a batch.
        max_line_bytes: Size of one line.
        json: What the JSON of a line may be like.
    """

    max_file_bytes: int = 512 * 2**20
    max_stored_bytes: int = 20 * 2**30
    max_unfinished_batches: int = 100
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


class JobObserver(Protocol):
    """Told what a runner does."""

    def chunk_claimed(self) -> None:
        """Note that a chunk was claimed."""

    def claim_lost(self) -> None:
        """Note that a chunk went to another runner while it ran."""

    def lines_done(self, completed: int, failed: int) -> None:
        """Note that so many requests were answered, and so many refused."""

    def batch_ended(self, status: str) -> None:
        """Note that a batch has ended: "completed", "failed", "expired" or "cancelled"."""

    def store_answers(self, *, is_up: bool) -> None:
        """Note whether the store does what is asked of it."""

    def counted(self, batches: Mapping[str, int], oldest_s: int, stored_bytes: int) -> None:
        """Note what the store holds just now.

        Args:
            batches: Number of batches by each status that is not final.
            oldest_s: Age of the oldest batch that has not ended, in seconds; 0 without one.
            stored_bytes: Size of all files.
        """


class LineHandler(Protocol):
    """Answers the bodies of lines as the endpoint would."""

    async def answer(
        self, bodies: Sequence[Mapping[str, Any]], *, owner: str
    ) -> Sequence[LineResult]:
        """Answer requests; gives a result for each body, in order. A failing line fails alone.

        Raises:
            ModelUnavailableError: The model of the lines cannot be loaded now.
            NotReadyError: The server is shutting down.
        """

    def refuse(self, error: NestvecError) -> LineResult:
        """Return the result of a line that was not answered because of an error."""

    def is_loaded(self, model: str | None) -> bool:
        """Whether lines for a model can be answered without loading it first; also where no such model is served."""

    async def load(self, model: str | None) -> None:
        """Load a model.

        Raises:
            NestvecError: It cannot be loaded now.
        """

    def dimensions(self, model: str | None) -> int:
        """Return how many values a vector of a model has, as far as is known."""
