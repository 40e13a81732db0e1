"""An application whose OpenAPI document says what its routes really answer, although they parse by hand."""

import asyncio
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline

VALIDATION_SCHEMA: Final = "#/components/schemas/HTTPValidationError"
# Where a request may carry its key; `/docs` has a button for each, and generated clients know them.
SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "As OpenAI's clients send it."},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key", "description": "As Azure's."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
# What answers without a key, also where there are keys.
OPEN_PATHS: Final = frozenset(
    (
        *("/", "/health", "/health/live", "/health/ready", "/ping", "/metrics", "/api/version"),
        *("/v2", "/v2/health/live", "/v2/health/ready"),
    )
)


def documented_api(**options: Any) -> FastAPI:  # noqa: ANN401 - FastAPI's own
    """Create an application with `/docs`, whose page brings its scripts along: it works on hosts without internet too.

    The document is made for the first caller who asks for it, in a thread: it takes a tenth of a second or two.

    Args:
        **options: FastAPI's own.
    """
    app = FastAPIOffline(redoc_url=None, **options)
    generate = app.openapi
    making = asyncio.Lock()

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_security(_without_validation(generate()))
        return app.openapi_schema

    def encoded(root_path: str) -> bytes:
        document = openapi()
        if root_path:
            document = {**document, "servers": [{"url": root_path}]}
        return orjson.dumps(document)

    async def answer(request: Request) -> Response:
        root_path = request.scope.get("root_path", "").rstrip("/")
        async with making:
            content = await asyncio.to_thread(encoded, root_path)
        return Response(content, media_type="application/json")

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to change the document
    # FastAPI's own route makes the document on the event loop.
    path = app.openapi_url
    app.router.routes[:] = [
        route for route in app.router.routes if getattr(route, "path", "") != path
    ]
    app.add_api_route(str(path), answer, include_in_schema=False, response_model=None)
    return app


def _without_validation(document: dict[str, Any]) -> dict[str, Any]:
    """Remove the 422 that FastAPI adds to every route with a parameter: none is ever sent."""
    for operations in document.get("paths", {}).values():
        for operation in operations.values():
            if VALIDATION_SCHEMA in str(operation["responses"].get("422", {})):
                del operation["responses"]["422"]
    return document


def _with_security(document: dict[str, Any]) -> dict[str, Any]:
    """Say where a key goes: it may be left out where the server has none, and on what is open to all."""
    document.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
    document["security"] = [{}, *({name: []} for name in SECURITY_SCHEMES)]
    for path, operations in document.get("paths", {}).items():
        if path in OPEN_PATHS:
            for operation in operations.values():
                operation["security"] = []
    return document
