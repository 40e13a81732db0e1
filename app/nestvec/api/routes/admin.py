"""Routes for operators: which models are in memory. Off unless the operator switches them on, and only with a key.

Only models that the settings name can be loaded: a caller never chooses what is read from disk or network.
"""

from typing import Any

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.auth import let_in
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import Asked, enter, open_as
from nestvec.api.requests.fields import text_field
from nestvec.api.schemas.admin import LIST_DOC, LOAD_DOC, UNLOAD_DOC
from nestvec.engine.models.model_registry import Slot
from nestvec.errors import InputError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])


@router.get("/admin/models", **LIST_DOC)
async def list_models(request: Request) -> Response:
    """Every model, what it takes, and why it could not be loaded."""
    state = enter(request, OPENAI.name)
    let_in(request, state.keys)
    rows = [_described(slot) for slot in state.service.models.all()]
    return json_response({"models": rows})


@router.post("/admin/models/load", **LOAD_DOC)
async def load(request: Request) -> Response:
    """Bring a model into memory, and wait for it."""
    asked = await open_as(request, OPENAI)
    slot = _slot(asked)
    await asked.state.service.pool.load(slot)
    return json_response(_described(slot))


@router.post("/admin/models/unload", **UNLOAD_DOC)
async def unload(request: Request) -> Response:
    """Take a model out of memory once its calls have ended; the next one that means it loads it again."""
    asked = await open_as(request, OPENAI)
    slot = _slot(asked)
    await asked.state.service.pool.unload(slot)
    return json_response(_described(slot))


def _slot(asked: Asked) -> Slot:
    """The one named.

    Raises:
        InputError: None is.
        UnknownModelError: It is not served here.
    """
    name = text_field(asked.body, "model")
    if not name:
        raise InputError("you must provide 'model'", param="model")
    return asked.state.service.models.find(name)


def _described(slot: Slot) -> dict[str, Any]:
    return {
        "model": slot.name,
        "aliases": list(slot.aliases),
        "state": slot.state,
        "graph_bytes": slot.graph_bytes,
        "requests": slot.users,
        "is_kept": slot.is_kept,
        "error": slot.error.message if slot.error is not None else None,
    }
