"""The route of usage in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from nestvec.api.schemas.documented import ErrorBody, errors_of, operation


class UsageOfKey(BaseModel):
    """What a key has used in a month."""

    object: Literal["usage"]
    key_id: str = Field(description="Public id of the key, as in metrics and logs.")
    name: str = Field(description="The key's name for people; empty for keys of the settings.")
    month: str = Field(description="The month in UTC, as 2026-11.")
    requests: int = Field(description="Requests that were let in.")
    tokens: int = Field(description="Tokens that were run.")
    monthly_tokens: int | None = Field(description="The key's quota; null where it has none.")


class UsageList(BaseModel):
    """What one key, or all keys, have used in a month."""

    object: Literal["list"]
    month: str
    data: list[UsageOfKey]


def _parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


USAGE_DOC: Final = operation(
    "Tell what keys have used", UsageList, errors=errors_of(ErrorBody, (400, 401, 403, 503))
) | {
    "openapi_extra": {
        "parameters": [
            _parameter("month", "The month in UTC, as 2026-11; by default the current one."),
            _parameter(
                "key_id",
                "A key's id; keys other than one's own need the admin right. By default all.",
            ),
        ]
    }
}
