"""The models that embed, as Google's clients list them.

Source: Google's API reference, "Models".
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import GEMINI
from nestvec.api.http.auth import authenticate
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import bind_dialect
from nestvec.api.schemas.documented import MODEL_PATH
from nestvec.api.schemas.gemini import MODEL_DOC, MODELS_DOC
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.engine.types import OutputKind
from nestvec.system.public_names import public_name

router = APIRouter(route_class=RawRoute, tags=[GEMINI.name])

# Every client of Google's names itself in it.
CLIENT_HEADER: Final = "x-goog-api-client"


@router.get("/v1beta/models", **MODELS_DOC)
async def list_models(request: Request) -> Response:
    """List the models that embed, each a resource that `embedContent` takes."""
    state = bind_dialect(request, GEMINI.name)
    authenticate(request, state.keys)
    rows = [
        _described(slot, name)
        for slot, name in state.service.models.listed()
        if slot.spec is None or slot.gives(OutputKind.DENSE)
    ]
    return json_response({"models": rows})


@router.get("/v1beta/models/{model:path}", **MODEL_DOC)
async def get_model(request: Request, model: Annotated[str, MODEL_PATH]) -> Response:
    """Describe one model."""
    state = bind_dialect(request, GEMINI.name)
    authenticate(request, state.keys)
    return json_response(_described(state.service.models.find(model), model))


def is_from_google(request: Request) -> bool:
    """Return whether one of Google's own clients asks: on `/v1/models` nothing else tells it from OpenAI's."""
    return CLIENT_HEADER in request.headers


def _described(slot: ModelSlot, name: str) -> dict[str, Any]:
    spec = slot.spec
    return {
        "name": f"models/{public_name(name)}",
        "displayName": public_name(name),
        "version": "" if spec is None else spec.space,
        "inputTokenLimit": 0 if spec is None else spec.max_tokens,
        "outputTokenLimit": 1,
        "supportedGenerationMethods": ["embedContent"],
    }
