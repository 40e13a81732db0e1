"""JSON that comes from callers, in bodies and in files."""

import json
from typing import Any

import orjson

from app.engine.cutting import replace_lone_surrogates
from app.errors import BodyFormatError


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - JSON is of any type
    """Parse strict JSON: no NaN, no infinity; lone surrogates become U+FFFD.

    Raises:
        BodyFormatError: It is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        problem = f"We could not parse the JSON body of your request: {error.msg}"
    # orjson refuses lone surrogates, a byte order mark and integers beyond 64 bits, which are not errors.
    try:
        parsed = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
        return _without_surrogates(parsed)
    except UnicodeDecodeError:
        raise BodyFormatError("the body is not valid UTF-8") from None
    except RecursionError:
        raise BodyFormatError("the body is nested too deeply") from None
    except ValueError:
        raise BodyFormatError(problem) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _without_surrogates(value: Any) -> Any:  # noqa: ANN401 - JSON is of any type
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value
