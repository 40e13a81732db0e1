"""Routes for operators: which models are in memory. They are off by default, and ask for a key with the admin right.

Only models that the settings name can be loaded: a caller never chooses what is read from disk or network. A key that
is limited to some models sees, loads and unloads those only.
"""

from typing import Any

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.auth import authenticate_admin
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import ApiRequest, bind_dialect, read_request
from nestvec.api.requests.fields import text_field
from nestvec.api.schemas.admin import LIST_DOC, LOAD_DOC, UNLOAD_DOC
from nestvec.engine.models.model_registry import ModelRegistry, ModelSlot
from nestvec.errors import InputError
from nestvec.system.public_names import public_name, public_names, without_paths

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])


@router.get("/admin/models", **LIST_DOC)
async def list_models(request: Request) -> Response:
    """List every model, the memory it takes, and why it could not be loaded."""
    state = bind_dialect(request, OPENAI.name)
    authenticate_admin(request, state.keys)
    models = state.service.models
    rows = [_described(models, slot) for slot in models.visible()]
    return json_response({"models": rows})


@router.post("/admin/models/load", **LOAD_DOC)
async def load(request: Request) -> Response:
    """Bring a model into memory, and wait for it."""
    api_request = await read_request(request, OPENAI, authenticates=authenticate_admin)
    slot = _slot(api_request)
    await api_request.state.service.pool.load(slot)
    return json_response(_described(api_request.state.service.models, slot))


@router.post("/admin/models/unload", **UNLOAD_DOC)
async def unload(request: Request) -> Response:
    """Take a model out of memory once its calls have ended; the next call for it loads it again."""
    api_request = await read_request(request, OPENAI, authenticates=authenticate_admin)
    slot = _slot(api_request)
    await api_request.state.service.pool.unload(slot)
    return json_response(_described(api_request.state.service.models, slot))


def _slot(api_request: ApiRequest) -> ModelSlot:
    """Return the slot of the model that the body names.

    Raises:
        InputError: The body names none.
        UnknownModelError: No such model is served here.
    """
    name = text_field(api_request.body, "model")
    if not name:
        raise InputError("you must provide 'model'", param="model")
    return api_request.state.service.models.find(name)


def _described(models: ModelRegistry, slot: ModelSlot) -> dict[str, Any]:
    return {
        "model": public_name(slot.name),
        "aliases": public_names(models.aliases(slot)),
        "state": slot.state,
        "graph_bytes": slot.graph_bytes,
        "requests": slot.users,
        "is_kept": slot.is_kept,
        "error": without_paths(slot.error.message) if slot.error is not None else None,
    }
