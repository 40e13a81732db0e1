"""Health, readiness, metrics and the front page."""

import html
from typing import Any, Final, Literal

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel

from nestvec import __version__
from nestvec.api.http.auth import authenticate
from nestvec.api.state import RETRY_AFTER_LOADING_S, Phase, api_state
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.errors import NotReadyError
from nestvec.system.public_names import public_name

router = APIRouter(tags=["operations"])

PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Nestvec</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}}
code,pre{{background:#8881;border-radius:4px;padding:.1rem .3rem}}pre{{padding:.8rem;overflow:auto}}</style></head>
<body><h1>Nestvec {version}</h1><p>{status}</p>{models}
<pre>curl {base}v1/embeddings -H 'content-type: application/json' -d '{{"input": "hello"}}'</pre>
<p><a href="docs">API documentation</a> · <a href="v1/models">models</a> · <a href="metrics">metrics</a> ·
<a href="health/ready">readiness</a></p></body></html>
"""


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


def _model_item(slot: ModelSlot) -> str:
    """Return a list item with a model and what its quality report recommends."""
    quality = slot.model.quality if slot.model is not None else None
    rows = [] if quality is None else quality.get("recommendations", [])
    items = "".join(f"<li>{html.escape(str(row.get('text', '')))}</li>" for row in rows)
    recommendations = f"<ul>{items}</ul>" if items else ""
    return f"<li><code>{html.escape(public_name(slot.name))}</code>{recommendations}</li>"


@router.get("/", include_in_schema=False)
async def front_page(request: Request) -> Response:
    """A page for people; for Ollama's clients the line that they look for."""
    state = api_state(request)
    if "text/html" not in request.headers.get("accept", ""):
        if state.phase is not Phase.READY:
            raise NotReadyError("The server is not ready.")
        return PlainTextResponse("Ollama is running")
    models = ""
    if state.phase is Phase.READY and state.keys.is_open:
        items = map(_model_item, state.service.models.all())
        models = f"<ul>{''.join(items)}</ul>"
    page = PAGE.format(
        version=__version__ if state.keys.is_open else "",
        status=f"Status: {state.phase}",
        models=models,
        base=html.escape(str(request.base_url)),
    )
    return HTMLResponse(page, 200 if state.phase is Phase.READY else 503)
