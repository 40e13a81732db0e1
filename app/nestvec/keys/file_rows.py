"""What a file of keys may hold: every field is checked before any key is taken from it.

A file that holds anything else lets nobody in, so its problems name the key and the field. They never quote a value:
it may be a secret that was pasted into the wrong place.
"""

import json
import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

VERSION: Final = 1
KEY_ID: Final = r"^[0-9A-Za-z-]{1,24}$"
MAX_PROBLEMS: Final = 5
# Doubles count exactly to here.
MAX_TOKENS: Final = 2**53

# Without control characters: names are printed on terminals.
KeyName = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Rate = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Tokens = Annotated[int, Field(gt=0, le=MAX_TOKENS)]
Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FileRow(BaseModel):
    """A part of the file: of exact types, without unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class LimitsRow(FileRow):
    """What a key may do."""

    models: list[ModelName] = []
    requests_per_s: Rate | None = None
    tokens_per_min: Tokens | None = None
    monthly_tokens: Tokens | None = None
    is_bulk_only: bool = False


class SecretRow(FileRow):
    """A hashed secret."""

    salt: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    until_s: Time | None = None


class KeyRow(FileRow):
    """A key."""

    id: Annotated[str, StringConstraints(pattern=KEY_ID)]
    name: KeyName
    created_s: Time
    secrets: list[SecretRow]
    limits: LimitsRow | None = None
    revoked_s: Time | None = None
    is_admin: bool = False


class FileRows(FileRow):
    """The whole file."""

    version: Annotated[int, Field(ge=VERSION, le=VERSION)]  # `true` is no version
    keys: list[KeyRow]


class KeyFileError(Exception):
    """The content is no file of keys.

    Attributes:
        problems: One sentence for each problem, the first few of them.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse_rows(content: bytes) -> list[KeyRow]:
    """Read the keys of a file's content.

    Raises:
        KeyFileError: The content is damaged, of another version, or a field is wrong.
    """
    try:
        parsed = json.loads(content, object_pairs_hook=_without_doubles, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise KeyFileError(["it is damaged: this is no JSON, or a field is there twice"]) from error
    version = parsed.get("version") if isinstance(parsed, dict) else None
    if type(version) is int and version != VERSION:
        raise KeyFileError(["it was written by another version of nestvec"])
    try:
        rows = FileRows.model_validate(parsed).keys
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        problems = [_describe(parsed, tuple(detail["loc"]), detail) for detail in details]
        raise KeyFileError(_shortened(problems)) from error
    seen: set[str] = set()
    doubles = [row.id for row in rows if row.id in seen or seen.add(row.id)]  # type: ignore[func-returns-value] # None is falsy
    if doubles:
        raise KeyFileError(
            _shortened([f"key {key_id}: id: it is there twice" for key_id in doubles])
        )
    return rows


def _describe(parsed: Any, place: tuple[int | str, ...], detail: Any) -> str:  # noqa: ANN401 - JSON, pydantic's
    """Name the key and the field of a problem."""
    if place[:1] != ("keys",) or len(place) == 1:
        if detail["type"] == "extra_forbidden":
            return "the file has a field that is not known here"
        return f"{_field(place) or 'the file'}: {detail['msg']}"
    number = int(place[1])
    row = parsed["keys"][number]
    key_id = row.get("id") if isinstance(row, dict) else None
    is_id = isinstance(key_id, str) and re.fullmatch(KEY_ID, key_id)
    key = f"key {key_id}" if is_id else f"key number {number + 1}"
    if detail["type"] == "extra_forbidden":
        # The name of an unknown field is a value of the file, too.
        return f"{key}: {_field(place[2:-1]) or 'the key'} has a field that is not known here"
    return f"{key}: {_field(place[2:]) or 'the key'}: {detail['msg']}"


def _field(place: tuple[int | str, ...]) -> str:
    """A place within the file, as `secrets.0.salt`."""
    return ".".join(map(str, place))


def _shortened(problems: list[str]) -> list[str]:
    more = len(problems) - MAX_PROBLEMS
    return problems if more <= 0 else [*problems[:MAX_PROBLEMS], f"and {more} more"]


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, of which no field may be there twice: which one would hold would be chance."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return fields


def _refuse(constant: str) -> None:
    """Refuse NaN and the infinities, which are no JSON."""
    raise ValueError(constant)
