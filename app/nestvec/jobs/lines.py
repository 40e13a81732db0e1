"""Lines of a batch's input file: read within bounds, and checked before any of them runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nestvec.errors import InputError
from nestvec.jobs.types import JobLimits, Problem
from nestvec.system.json_bodies import JsonLimits, parse_json

MAX_PROBLEMS: Final = 100
MAX_CUSTOM_ID_CHARS: Final = 64
# Takes a code, a message, and the field of the line.
ReportProblem = Callable[[str, str, str | None], None]
BOM: Final = b"\xef\xbb\xbf"
# Enough for length-sorted batches of the engine, and a small part of what may wait there.
CHUNK_LINES: Final = 1024
CHUNK_BYTES: Final = 256 * 1024
# What a row of the answers has around its vectors, a vector around its values, and a value of either encoding.
ROW_BYTES: Final = 512
VECTOR_BYTES: Final = 64
BASE64_BYTES: Final = 6
DECIMAL_BYTES: Final = 14


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank.

    Attributes:
        number: Its number, from 1; blank lines are counted.
        content: Its bytes; None where it is longer than a line may be.
        offset_bytes: Where it begins in what was read.
    """

    number: int
    content: bytes | None
    offset_bytes: int = 0


@dataclass(slots=True)
class Cut:
    """Lines of an input file that are run together.

    Attributes:
        first_request: How many requests come before them.
        offset_bytes: Where the first of them begins.
        requests: How many they are.
        size_bytes: Their size, with blank lines between them.
    """

    first_request: int
    offset_bytes: int
    requests: int = 0
    size_bytes: int = 0

    @property
    def is_full(self) -> bool:
        """Whether no more lines belong here."""
        return self.requests >= CHUNK_LINES or self.size_bytes >= CHUNK_BYTES

    def add(self, line: Line) -> None:
        """Take the next line."""
        self.requests += 1
        self.size_bytes = line.offset_bytes + len(line.content or b"") - self.offset_bytes


@dataclass(slots=True)
class InputCheck:
    """What the check of an input file has found.

    Attributes:
        endpoint: What each line's `url` must be.
        limits: Bounds on lines and inputs.
        problems: What is wrong with the file.
        total: Number of requests in it.
        inputs: Number of inputs, summed over the requests.
        model: Model that all its lines ask for; None where they name none.
        dimensions: Gives how many values a vector of a model has, to estimate the size of answers.
        answer_bytes: What the answers are expected to take at most.
        cuts: Its lines, cut into what is run together.
    """

    endpoint: str
    limits: JobLimits
    problems: list[Problem] = field(default_factory=list)
    total: int = 0
    inputs: int = 0
    model: str | None = None
    dimensions: Callable[[str | None], int] = lambda _: 0
    answer_bytes: int = 0
    cuts: list[Cut] = field(default_factory=list)
    _custom_ids: set[str] = field(default_factory=set)
    _has_body: bool = False
    _most_dimensions: int = 0

    def add_line(self, line: Line) -> None:
        """Check the next line of the file."""
        if not self.cuts or self.cuts[-1].is_full:
            self.cuts.append(Cut(self.total, line.offset_bytes))
        self.cuts[-1].add(line)
        self.total += 1

        def report(code: str, message: str, param: str | None) -> None:
            self.problems.append(Problem(code, message, param, line.number))

        try:
            row = parse_line(line, self.limits.json)
        except InputError as error:
            report("invalid_json_line", error.message, None)
            return
        self._check_custom_id(row.get("custom_id"), report)
        if row.get("method") != "POST":
            report("missing_required_parameter", "'method' must be 'POST'.", "method")
        if row.get("url") != self.endpoint:
            report("url_mismatch", f"'url' must be '{self.endpoint}', as the batch's.", "url")
        body = row.get("body")
        if not isinstance(body, dict):
            report("missing_required_parameter", "'body' must be an object.", "body")
            return
        model = body.get("model") if isinstance(body.get("model"), str) else None
        if not self._has_body:
            self._has_body, self.model = True, model
            self._most_dimensions = self.dimensions(model)
        elif model != self.model:
            report("model_mismatch", "All lines of a batch must name the same 'model'.", "model")
        inputs = count_inputs(body.get("input"))
        self.inputs += inputs
        self.answer_bytes += ROW_BYTES + inputs * self._vector_bytes(body)
        if self.total > self.limits.max_lines or self.inputs > self.limits.max_inputs:
            reason = (
                f"A batch takes at most {self.limits.max_lines} requests and {self.limits.max_inputs} inputs over all "
                "of them; split the file."
            )
            report("too_many_tasks", reason, None)

    def _vector_bytes(self, body: Mapping[str, Any]) -> int:
        """What a vector takes in the answer to a body, as JSON."""
        dimensions = body.get("dimensions")
        if not isinstance(dimensions, int) or not 0 < dimensions <= self._most_dimensions:
            dimensions = self._most_dimensions
        is_base64 = body.get("encoding_format") == "base64"
        return VECTOR_BYTES + dimensions * (BASE64_BYTES if is_base64 else DECIMAL_BYTES)

    def _check_custom_id(self, custom_id: object, report: ReportProblem) -> None:
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARS:
            reason = f"'custom_id' must be a text of 1 to {MAX_CUSTOM_ID_CHARS} characters."
            report("missing_required_parameter", reason, "custom_id")
        elif custom_id in self._custom_ids:
            report("duplicate_custom_id", "Another line has the same 'custom_id'.", "custom_id")
        else:
            self._custom_ids.add(custom_id)


def read_lines(path: Path, max_line_bytes: int) -> Iterator[Line]:
    """Read the lines of a file that are not blank; a BOM and CRLF are tolerated, and never more than a line is held.

    Args:
        path: The file.
        max_line_bytes: Size of a line; a longer one has no content.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        number = end = 0
        while piece := file.readline(max_line_bytes + 1):
            number += 1
            start, end = end, end + len(piece)
            content: bytes | None = piece
            if len(piece) > max_line_bytes and not piece.endswith(b"\n"):
                content = None
                while piece and not piece.endswith(b"\n"):
                    piece = file.readline(max_line_bytes)
                    end += len(piece)
            elif number == 1:
                content = piece.removeprefix(BOM)
                start += len(piece) - len(content)
            if content is None or content.strip():
                yield Line(number, content, start)


def check_lines(
    path: Path,
    endpoint: str,
    limits: JobLimits,
    *,
    dimensions: Callable[[str | None], int] = lambda _: 0,
    is_stopped: Callable[[], bool] = lambda: False,
) -> InputCheck:
    """Check a whole input file before any of it runs, and cut it into chunks.

    Args:
        path: The file.
        endpoint: What each line's `url` must be.
        limits: Bounds on lines and inputs.
        dimensions: Gives how many values a vector of a model has, to estimate the size of answers.
        is_stopped: Asked at each line whether the check may end, whatever it has found.

    Returns:
        What was found, with at most `MAX_PROBLEMS` problems; a file without any may run.

    Raises:
        OSError: The file cannot be read.
    """
    check = InputCheck(endpoint, limits, dimensions=dimensions)
    if path.stat().st_size > limits.max_batch_bytes:
        reason = f"The input file is over {limits.max_batch_bytes} bytes; split it."
        check.problems.append(Problem("too_many_tasks", reason))
        return check
    for line in read_lines(path, limits.max_line_bytes):
        check.add_line(line)
        if len(check.problems) >= MAX_PROBLEMS or check.total > limits.max_lines or is_stopped():
            break
    if not check.total:
        check.problems.append(Problem("empty_file", "The input file has no lines."))
    return check


def cut_behind(lines: Iterator[Line], done: int) -> list[Cut]:
    """Cut lines into what is run together, those that are done already as one piece before the others."""
    cuts: list[Cut] = []
    for number, line in enumerate(lines):
        if number in (0, done) or (number > done and cuts[-1].is_full):
            cuts.append(Cut(number, line.offset_bytes))
        cuts[-1].add(line)
    return cuts


def lines_of(content: bytes) -> list[Line]:
    """The lines of a chunk that are not blank, numbered within it."""
    lines, offset = [], 0
    for number, piece in enumerate(content.split(b"\n"), 1):
        if piece.strip():
            lines.append(Line(number, piece, offset))
        offset += len(piece) + 1
    return lines


def parse_line(line: Line, limits: JsonLimits | None) -> Mapping[str, Any]:
    """Parse a line, which must be a JSON object.

    Args:
        line: The line.
        limits: What its JSON may be like; None where that was checked.

    Raises:
        InputError: The line is too long, no JSON object, nested too deeply, or of too many values.
    """
    if line.content is None:
        raise InputError("This line is longer than a line may be.")
    parsed = parse_json(line.content.strip(), limits)
    if not isinstance(parsed, dict):
        raise InputError("This line is no JSON object.")
    return parsed


def count_inputs(value: object) -> int:
    """The number of inputs in a body's `input`; a text is one, and so is an array of tokens."""
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return len(value)
    return 1


def request_of(line: Line) -> tuple[str, Mapping[str, Any]]:
    """The `custom_id` and the `body` of a line that was checked."""
    row = parse_line(line, None)
    return row["custom_id"], row["body"]
