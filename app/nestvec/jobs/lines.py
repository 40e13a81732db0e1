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


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank.

    Attributes:
        number: Its number, from 1; blank lines are counted.
        content: Its bytes; None where it is longer than a line may be.
    """

    number: int
    content: bytes | None


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
    """

    endpoint: str
    limits: JobLimits
    problems: list[Problem] = field(default_factory=list)
    total: int = 0
    inputs: int = 0
    model: str | None = None
    _custom_ids: set[str] = field(default_factory=set)
    _has_body: bool = False

    def add_line(self, line: Line) -> None:
        """Check the next line of the file."""
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
        elif model != self.model:
            report("model_mismatch", "All lines of a batch must name the same 'model'.", "model")
        self.inputs += count_inputs(body.get("input"))
        if self.total > self.limits.max_lines or self.inputs > self.limits.max_inputs:
            reason = (
                f"A batch takes at most {self.limits.max_lines} requests and {self.limits.max_inputs} inputs over all "
                "of them; split the file."
            )
            report("too_many_tasks", reason, None)

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
        number = 0
        while piece := file.readline(max_line_bytes + 1):
            number += 1
            content: bytes | None = piece
            if len(piece) > max_line_bytes and not piece.endswith(b"\n"):
                content = None
                while piece and not piece.endswith(b"\n"):
                    piece = file.readline(max_line_bytes)
            elif number == 1:
                content = piece.removeprefix(BOM)
            if content is None or content.strip():
                yield Line(number, content)


def check_lines(path: Path, endpoint: str, limits: JobLimits) -> InputCheck:
    """Check a whole input file before any of it runs.

    Args:
        path: The file.
        endpoint: What each line's `url` must be.
        limits: Bounds on lines and inputs.

    Returns:
        What was found, with at most `MAX_PROBLEMS` problems; a file without any may run.

    Raises:
        OSError: The file cannot be read.
    """
    check = InputCheck(endpoint, limits)
    if path.stat().st_size > limits.max_batch_bytes:
        reason = f"The input file is over {limits.max_batch_bytes} bytes; split it."
        check.problems.append(Problem("too_many_tasks", reason))
        return check
    for line in read_lines(path, limits.max_line_bytes):
        check.add_line(line)
        if len(check.problems) >= MAX_PROBLEMS or check.total > limits.max_lines:
            break
    if not check.total:
        check.problems.append(Problem("empty_file", "The input file has no lines."))
    return check


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
