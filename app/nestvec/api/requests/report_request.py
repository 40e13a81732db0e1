"""Reads what a caller's report is made of: fields of the body, or an uploaded file of lines."""

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from nestvec.api.requests.fields import Body, integer_field, invalid_item, text_field
from nestvec.api.state import ApiState
from nestvec.corpus.reports.frame import Need, Report, ReportData
from nestvec.corpus.reports.running import check_data
from nestvec.corpus.reports.table import find_report
from nestvec.errors import InputError, RequestTooLargeError
from nestvec.system.unicode import replace_lone_surrogates

# It brings SQLAlchemy, which a server without files and batches does not need.
if TYPE_CHECKING:
    from nestvec.jobs.store import JobStore

FIELDS: Final = frozenset(
    ("report", "model", "other_model", "file_id", "seed", "timeout_s", *map(str, Need))
)
# A server has other callers: more texts are for the command line.
MAX_ITEMS: Final = 20_000
MAX_FILE_BYTES: Final = 32 * 2**20
MAX_TEXT_CHARACTERS: Final = 32 * 2**20
DEFAULT_SEED: Final = 7
MAX_SEED: Final = 2**32 - 1
PAIR: Final = 2


async def parse_report(body: Body, state: ApiState, owner: str) -> tuple[Report, ReportData, int]:
    """Read which report is wanted, what it is made of, and its seed.

    Raises:
        InputError: A field is missing or wrong, or something is too little or too much.
        NotFoundError: The key has no such file.
    """
    name = text_field(body, "report")
    if name is None:
        raise InputError("'report' is required", param="report", code="missing_required_parameter")
    report = find_report(name)
    file_id = text_field(body, "file_id")
    given = [need for need in Need if body.get(need.value) is not None]
    if file_id is None:
        data = ReportData(
            texts=_texts(body, Need.TEXTS),
            reference=_texts(body, Need.REFERENCE),
            pairs=_pairs(body.get(Need.PAIRS)),
            labels=_texts(body, Need.LABELS, are_labels=True),
        )
    elif given:
        raise InputError(f"give 'file_id' or '{given[0]}', not both", param="file_id")
    else:
        data = await _from_file(state, file_id, owner)
    _check_sizes(data)
    check_data(report, data)
    seed = integer_field(body, "seed")
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise InputError(f"'seed' must be 0 to {MAX_SEED}", param="seed")
    return report, data, DEFAULT_SEED if seed is None else seed


def _texts(body: Body, need: Need, *, are_labels: bool = False) -> list[str]:
    value, name = body.get(need.value), need.value
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"'{name}' must be a list of strings", param=name, code="invalid_type")
    _check_count(name, len(value))
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise invalid_item(name, index, "must be a string")
        if not are_labels and not text.strip():
            raise invalid_item(name, index, "is empty")
    return value


def _pairs(value: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - JSON is of any type
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(
            "'pairs' must be a list of [text, text]", param="pairs", code="invalid_type"
        )
    _check_count("pairs", len(value))
    for index, pair in enumerate(value):
        if (
            not isinstance(pair, list)
            or len(pair) != PAIR
            or not all(isinstance(text, str) and text.strip() for text in pair)
        ):
            raise invalid_item("pairs", index, "must be [text, text]")
    return [(first, second) for first, second in value]


async def _from_file(state: ApiState, file_id: str, owner: str) -> ReportData:
    """Read an uploaded file of lines.

    Raises:
        NotFoundError: The key has no such file.
        InputError: It is too large, or a line is wrong; the error names it.
    """

    def read(store: "JobStore") -> bytes:
        file = store.file(file_id, owner)
        if file.size_bytes > MAX_FILE_BYTES:
            raise RequestTooLargeError(
                f"the file has {file.size_bytes} bytes, a report reads at most {MAX_FILE_BYTES}",
                param="file_id",
            )
        return b"".join(store.objects.read(store.content_name(file_id)))

    content = await state.jobs.call_contents(read)
    return await asyncio.to_thread(parse_lines, content)


def parse_lines(content: bytes) -> ReportData:
    """Read lines of JSON: `{"text", "label"}`, `{"reference"}`, `{"pair": [text, text]}`.

    Raises:
        InputError: A line is of another form; the error names its number, from 1.
    """
    texts: list[str] = []
    labels: list[str] = []
    reference: list[str] = []
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise _wrong_line(number, "is no JSON object")
        if "pair" in row:
            pairs += _line_pair(row["pair"], number)
        elif "reference" in row:
            reference.append(_line_text(row["reference"], number, "reference"))
        else:
            texts.append(_line_text(row.get("text"), number, "text"))
            if "label" in row:
                labels.append(_line_text(row["label"], number, "label"))
    return ReportData(texts, reference, pairs, labels)


def _line_text(value: object, number: int, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong_line(number, f"has no '{name}', or an empty one")
    return replace_lone_surrogates(value)


def _line_pair(value: object, number: int) -> Sequence[tuple[str, str]]:
    if not isinstance(value, list) or len(value) != PAIR:
        raise _wrong_line(number, "has a 'pair' that is no [text, text]")
    first, second = (_line_text(text, number, "pair") for text in value)
    return [(first, second)]


def _wrong_line(number: int, problem: str) -> InputError:
    return InputError(
        f"line {number} of the file {problem}; lines are "
        '{"text": …, "label": …}, {"reference": …} or {"pair": [text, text]}',
        param="file_id",
    )


def _check_sizes(data: ReportData) -> None:
    characters = sum(map(len, data.texts)) + sum(map(len, data.reference))
    characters += sum(len(first) + len(second) for first, second in data.pairs)
    for need in Need:
        _check_count(need.value, len(data.given(need)))
    if characters > MAX_TEXT_CHARACTERS:
        raise RequestTooLargeError(
            f"{characters} characters are too many for a report of the server, max {MAX_TEXT_CHARACTERS}; "
            "'nestvec report --url' takes more",
            param=Need.TEXTS,
        )


def _check_count(name: str, count: int) -> None:
    if count > MAX_ITEMS:
        raise RequestTooLargeError(
            f"{count} {name} are too many for a report of the server, max {MAX_ITEMS}; "
            "'nestvec report --url' takes more",
            param=name,
        )
