"""How routes that parse by hand are described in the OpenAPI document."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

Errors = Mapping[int, type[BaseModel]]
RAW: Final = "application/octet-stream"
RAW_CONTENT: Final = {"schema": {"type": "string", "format": "binary"}}
# What any route that runs the model may answer beside its vectors.
STATUSES: Final = (400, 401, 404, 413, 429, 500, 503, 504)


class ErrorDetail(BaseModel):
    """OpenAI's error object; all four keys are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Error body; `detail` and `message` repeat the message for other vendors' clients."""

    error: ErrorDetail
    detail: str
    message: str


class TeiError(BaseModel):
    """TEI's error body."""

    error: str
    error_type: str


class StringError(BaseModel):
    """Ollama's and the Open Inference Protocol's error body."""

    error: str


def errors_of(model: type[BaseModel], statuses: Sequence[int] = STATUSES) -> Errors:
    """Errors of a route, by status."""
    return dict.fromkeys(statuses, model)


def operation(
    summary: str,
    answer: Any,  # noqa: ANN401 - whatever FastAPI takes as a response model
    *,
    bodies: Mapping[str, type[BaseModel]] | None = None,
    errors: Errors | None = None,
    content: Mapping[str, Any] | None = None,
    gives_bytes: bool = False,
) -> dict[str, Any]:
    """Arguments of a route's decorator.

    Args:
        summary: One line.
        answer: Model of the answer.
        bodies: Models of the body by dialect; several where the body decides. Their examples are shown by that name.
        errors: Models of errors by status; those of any route that runs the model where left out.
        content: Instead of `bodies`: the request's content, as OpenAPI has it.
        gives_bytes: Whether a request may ask for raw bytes instead of JSON.
    """
    given = errors_of(ErrorBody) if errors is None else errors
    responses: dict[int, dict[str, Any]] = {
        status: {"model": model} for status, model in given.items()
    }
    if gives_bytes:
        responses[200] = {"content": {RAW: RAW_CONTENT}}
    described: dict[str, Any] = {
        "summary": summary,
        "response_model": answer,
        "responses": responses,
    }
    if bodies:
        content = {"application/json": json_content(bodies)}
    if content:
        described["openapi_extra"] = {"requestBody": {"required": True, "content": content}}
    return described


def json_content(bodies: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """Schema and examples of a body that may be in several dialects."""
    schemas = {name: _schema(model) for name, model in bodies.items()}
    examples = {
        (name if number == 0 else f"{name} {number + 1}"): {"value": value}
        for name, schema in schemas.items()
        for number, value in enumerate(schema.pop("examples", []))
    }
    every = list(schemas.values())
    found: dict[str, Any] = {"schema": every[0] if len(every) == 1 else {"anyOf": every}}
    return {**found, "examples": examples} if examples else found


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's schema in one piece: references to its own definitions would point nowhere in the document."""
    whole = model.model_json_schema()
    definitions = whole.pop("$defs", {})

    def inlined(value: Any) -> Any:  # noqa: ANN401 - JSON is of any type
        if isinstance(value, dict):
            if "$ref" in value:
                return inlined(definitions[value["$ref"].rsplit("/", 1)[-1]])
            return {key: inlined(item) for key, item in value.items()}
        return [inlined(item) for item in value] if isinstance(value, list) else value

    schema: dict[str, Any] = inlined(whole)
    return schema
