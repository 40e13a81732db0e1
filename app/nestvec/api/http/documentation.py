"""The application whose OpenAPI document says what routes that parse by hand really answer."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

VALIDATION: Final = "#/components/schemas/HTTPValidationError"


def documented_api(**options: Any) -> FastAPI:  # noqa: ANN401 - FastAPI's own
    """An application with `/docs`; the page brings its scripts along, so hosts without internet show it too."""
    app = FastAPIOffline(redoc_url=None, **options)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        return _without_validation(generate())

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to change the document
    return app


def _without_validation(document: dict[str, Any]) -> dict[str, Any]:
    """The document without the 422 that FastAPI adds to every route with a parameter: none is ever sent."""
    for operations in document.get("paths", {}).values():
        for operation in operations.values():
            if VALIDATION in str(operation["responses"].get("422", {})):
                del operation["responses"]["422"]
    return document
