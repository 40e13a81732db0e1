"""`GET /v1/models`: OpenAI's four keys, then what a caller should know of a model."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.auth import let_in
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import enter
from nestvec.api.schemas.openai import MODEL_DOC, MODELS_DOC
from nestvec.engine.models.model_registry import Slot
from nestvec.engine.models.served_model import NO_PIN, ServedModel
from nestvec.engine.vector_plan import fitted_exits
from nestvec.engine.vectors.maps import AffineMap
from nestvec.engine.vectors.quantization import Quantiser

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

MODEL_PATH: Final = Path(description="A model's name.", examples=["all-MiniLM-L6-v2"])
# What is not known of a model before it was loaded.
DESCRIBED: Final = (
    *("max_model_len", "dimensions", "outputs", "labels", "pooling", "normalized", "prompts"),
    *("space", "quantization", "architecture", "precision", "provider", "license", "source"),
    *("layers", "maps", "quality"),
)


@router.get("/v1/models", **MODELS_DOC)
@router.get("/models", include_in_schema=False)
async def list_models(request: Request) -> Response:
    """List what is served, and the names that stand for a prompt or dimensions; other aliases only answer."""
    state = enter(request, OPENAI.name)
    let_in(request, state.keys)
    data = [_model_object(slot, name) for slot, name in state.service.models.listed()]
    for one in data:
        one.pop("quality", None)  # long: shown of one model only
    return json_response({"object": "list", "data": data})


@router.get("/v1/models/{model:path}", **MODEL_DOC)
@router.get("/models/{model:path}", include_in_schema=False)
async def retrieve_model(request: Request, model: Annotated[str, MODEL_PATH]) -> Response:
    """Describe one model; names with slashes come raw or percent-encoded."""
    state = enter(request, OPENAI.name)
    let_in(request, state.keys)
    return json_response(_model_object(state.service.models.find(model), model))


def _model_object(slot: Slot, name: str) -> dict[str, Any]:
    """OpenAI's four keys, then what a caller should know; what a model is, is known once it was loaded."""
    spec, pin, model = slot.spec, slot.pin(name), slot.model
    pinned = {"prompt_name": pin.prompt_name, "dimensions": pin.dimensions}
    found = {
        "id": name,
        "object": "model",
        "created": spec.created_s if spec is not None else 0,
        "owned_by": "nestvec",
        "root": slot.name,
        "aliases": list(slot.aliases),
        "pinned": None if pin is NO_PIN else pinned,
        "state": slot.state,
    }
    if spec is None:
        return {**found, **dict.fromkeys(DESCRIBED)}
    return {
        **found,
        "max_model_len": spec.max_tokens,
        "dimensions": {
            "native": spec.hidden_size,
            "range": [1, spec.hidden_size],
            "trained": list(spec.trained_dimensions),
        },
        "outputs": list(spec.kinds),
        "labels": list(spec.labels),
        "pooling": spec.pooling,
        "normalized": spec.is_normalized,
        "prompts": sorted(spec.prompts),
        "space": spec.space,
        "quantization": None if model is None else quantization(model.quantiser),
        "architecture": spec.architecture,
        "precision": spec.precision,
        "provider": None if model is None else model.core.traits.provider,
        "license": spec.license,
        "source": spec.source,
        "layers": None if model is None else layers(model),
        "maps": [] if model is None else [map_object(one) for one in model.maps.values()],
        "quality": None if model is None else model.quality,
    }


def layers(model: ServedModel) -> dict[str, Any] | None:
    """A model's early exits, and what makes each of use; None where it always runs all its layers."""
    deepest = model.core.traits.layers
    if not deepest:
        return None
    fitted = {layer: one.name for layer, one in fitted_exits(model).items()}
    return {
        "native": deepest,
        "trained": list(model.spec.trained_layers),
        "fitted": {str(layer): name for layer, name in sorted(fitted.items())},
    }


def map_object(one: AffineMap) -> dict[str, Any]:
    """What a map does, and what was measured when it was fitted."""
    return {
        "name": one.name,
        "kind": one.kind,
        "space": one.space,
        "dimensions": one.width,
        "layers": one.layers or None,
        "target": one.target_model or None,
        "target_space": one.target or None,
        "figures": dict(one.figures),
    }


def quantization(quantiser: Quantiser) -> dict[str, Any]:
    """Where the ranges of a model's int8 and uint8 vectors come from."""
    return {"id": quantiser.id, "source": quantiser.source}
