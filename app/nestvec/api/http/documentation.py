"""An application whose OpenAPI document says what its routes really answer, although they parse by hand."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

VALIDATION_SCHEMA: Final = "#/components/schemas/HTTPValidationError"


def documented_api(**options: Any) -> FastAPI:  # noqa: ANN401 - FastAPI's own
    """Create an application with `/docs`, whose page brings its scripts along: it works on hosts without internet too.

    Args:
        **options: FastAPI's own.
    """
    app = FastAPIOffline(redoc_url=None, **options)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        return _without_validation(generate())

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to change the document
    return app


def _without_validation(document: dict[str, Any]) -> dict[str, Any]:
    """Remove the 422 that FastAPI adds to every route with a parameter: none is ever sent."""
    for operations in document.get("paths", {}).values():
        for operation in operations.values():
            if VALIDATION_SCHEMA in str(operation["responses"].get("422", {})):
                del operation["responses"]["422"]
    return document
