"""Describes routes that parse by hand for the OpenAPI document."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from fastapi import Path, Response
from pydantic import BaseModel

Errors = Mapping[int, type[BaseModel]]
# A path parameter that several routes have.
MODEL_PATH: Final = Path(description="A model's name.", examples=["all-MiniLM-L6-v2"])
RAW: Final = "application/octet-stream"
RAW_CONTENT: Final = {"schema": {"type": "string", "format": "binary"}}
# The error statuses of any route that runs the model.
STATUSES: Final = (400, 401, 404, 413, 429, 500, 503, 504)


class PictureUrl(BaseModel):
    """Where OpenAI's parts have a picture."""

    url: str


class InputObject(BaseModel):
    """A text, or a picture by any one of the vendors' fields: a data URL, or base64; other URLs are not fetched."""

    text: str | None = None
    image: str | None = None
    type: Literal["text", "input_text", "image_url", "input_image"] | None = None
    image_url: str | PictureUrl | None = None


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
    """Error body of Text Embeddings Inference."""

    error: str
    error_type: str


class StringError(BaseModel):
    """Error body of Ollama and of the Open Inference Protocol."""

    error: str


def errors_of(model: type[BaseModel], statuses: Sequence[int] = STATUSES) -> Errors:
    """Return the errors of a route, by status."""
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
    """Return the arguments of a route's decorator.

    Args:
        summary: One line on what the route does.
        answer: Model of the answer.
        bodies: Models of the body by dialect, several where the body decides; their examples are shown by that name.
        errors: Models of errors by status; by default those of any route that runs the model.
        content: The request's content as OpenAPI has it, instead of `bodies`.
        gives_bytes: Whether a request may ask for raw bytes instead of JSON.
    """
    models = errors_of(ErrorBody) if errors is None else errors
    responses: dict[int, dict[str, Any]] = {
        status: {"model": model} for status, model in models.items()
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
    """Return the schema and examples of a body that may be in several dialects."""
    schemas = {name: _schema(model) for name, model in bodies.items()}
    examples = {
        (name if index == 0 else f"{name} {index + 1}"): {"value": value}
        for name, schema in schemas.items()
        for index, value in enumerate(schema.pop("examples", []))
    }
    alternatives = list(schemas.values())
    content: dict[str, Any] = {
        "schema": alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
    }
    return {**content, "examples": examples} if examples else content


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema in one piece: references to its own definitions would point nowhere in the document."""
    root = model.model_json_schema()
    definitions = root.pop("$defs", {})

    def inlined(value: Any) -> Any:  # noqa: ANN401 - JSON is of any type
        if isinstance(value, dict):
            if "$ref" in value:
                return inlined(definitions[value["$ref"].rsplit("/", 1)[-1]])
            return {key: inlined(item) for key, item in value.items()}
        return [inlined(item) for item in value] if isinstance(value, list) else value

    schema: dict[str, Any] = inlined(root)
    return schema


def page_operation(summary: str, formats: Sequence[str], *, errors: Errors) -> dict[str, Any]:
    """Return the arguments of the decorator of a route that gives a page, in the format that its query asks for."""
    described = operation(summary, None, errors=errors)
    media = {"json": "application/json", "html": "text/html", "markdown": "text/markdown"}
    content = {media[name]: {"schema": {"type": "string"}} for name in formats}
    described["responses"][200] = {"description": "The page.", "content": content}
    described["response_class"] = Response
    described["openapi_extra"] = {"parameters": [format_parameter(formats)]}
    return described


def format_parameter(formats: Sequence[str]) -> dict[str, Any]:
    """Return the query's `format` as OpenAPI has it; the first one is the default."""
    return {
        "name": "format",
        "in": "query",
        "required": False,
        "description": f"The form of the answer; {formats[0]} by default.",
        "schema": {"type": "string", "enum": list(formats)},
    }
