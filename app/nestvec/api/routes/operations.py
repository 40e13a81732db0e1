"""Health, readiness, metrics and the front page."""

from typing import Any, Final, Literal

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel

from nestvec import __version__
from nestvec.api.http.auth import authenticate
from nestvec.api.http.front_page import render_front_page
from nestvec.api.state import RETRY_AFTER_LOADING_S, Phase, api_state
from nestvec.errors import NotReadyError

router = APIRouter(tags=["operations"])


class Phases(BaseModel):
    """Where the server is in its life; the others are TEI's, while it is not ready."""

    status: Phase
    reason: Literal["keys_unreadable"] | None = None
    error: str | None = None
    error_type: str | None = None


READY_DOC: Final[dict[str, Any]] = {
    "summary": "Whether requests are served",
    "response_model": Phases,
    "responses": {503: {"model": Phases}},
}


@router.get("/health/live", summary="Whether the process answers", response_class=PlainTextResponse)
async def live() -> Response:
    """Always 200 while the event loop runs; restart the process when this fails."""
    return PlainTextResponse("ok")


@router.get("/health/ready", **READY_DOC)
@router.get("/health", **READY_DOC)
@router.get("/ping", include_in_schema=False)
async def ready(request: Request) -> Response:
    """Answer 200 once probes and warm-up have passed, and until draining begins; else 503.

    While the file of keys cannot be read and no other key is good, nobody is served: 503 too.
    """
    state = api_state(request)
    state.keys.refresh()
    reason = {"reason": "keys_unreadable"} if state.keys.problem else {}
    if state.phase is Phase.READY and not state.keys.lets_nobody_in:
        content = {"status": state.phase, **reason}
        return Response(orjson.dumps(content), media_type="application/json")
    status = Phase.FAILED if state.phase is Phase.READY else state.phase
    # `error` and `error_type` are TEI's.
    content = {"status": status, **reason, "error": "unhealthy", "error_type": "Unhealthy"}
    headers = {"retry-after": str(round(RETRY_AFTER_LOADING_S))}
    return Response(orjson.dumps(content), 503, headers, media_type="application/json")


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus text, or OpenMetrics where `Accept` asks for it."""
    state = api_state(request)
    if state.options.protect_operations:
        authenticate(request, state.keys)
    content, content_type = state.metrics.exposition(request.headers.get("accept", ""))
    return Response(content, media_type=content_type)


@router.get("/", include_in_schema=False)
async def front_page(request: Request) -> Response:
    """A page for people; for Ollama's clients the line that they look for."""
    state = api_state(request)
    is_ready = state.phase is Phase.READY
    if "text/html" not in request.headers.get("accept", ""):
        if not is_ready:
            raise NotReadyError("The server is not ready.")
        return PlainTextResponse("Ollama is running")
    is_open = state.keys.is_open
    page = render_front_page(
        version=__version__ if is_open else "",
        status=str(state.phase),
        slots=state.service.models.all() if is_ready and is_open else (),
        base_url=str(request.base_url),
        has_console=state.options.has_console,
    )
    return HTMLResponse(page, 200 if is_ready else 503)
