"""`GET /v1/models`: OpenAI's four keys, then what a caller should know of a model."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.auth import authenticate
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import bind_dialect
from nestvec.api.routes import gemini_models
from nestvec.api.schemas.documented import MODEL_PATH
from nestvec.api.schemas.openai import MODEL_CARD_DOC, MODEL_DOC, MODEL_QUALITY_DOC, MODELS_DOC
from nestvec.corpus.reports.model_card import card_markdown, card_page
from nestvec.engine.front.vector_plan import fitted_exits, resolve_plan
from nestvec.engine.models.model_registry import ModelRegistry, ModelSlot
from nestvec.engine.models.served_model import NO_PRESET, AliasPreset, ServedModel
from nestvec.engine.recipes.recipe import Combination, Recipe
from nestvec.engine.recipes.recipe_slot import RecipeSlot
from nestvec.engine.text.preparation.text_form import PLAIN_TEXTS
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.engine.vectors.maps import AffineMap
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import InputError
from nestvec.system.public_names import public_name, public_names, without_paths

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

# OpenAI's current names; the others of `openai_aliases` only answer.
LISTED_ALIASES: Final = "text-embedding-3-"
CARD_FORMATS: Final = {"html": "text/html", "markdown": "text/markdown"}
# Keys that are null until the model has been loaded.
KNOWN_ONCE_LOADED: Final = (
    *("max_model_len", "dimensions", "outputs", "labels", "pooling", "normalized", "prompts"),
    "input_modalities",
    *("space", "quantization", "architecture", "precision", "provider", "reproducibility"),
    *("license", "source", "languages", "language_count", "parameters"),
    *("layers", "maps", "quality", "reports"),
)


@router.get("/v1/models", **MODELS_DOC)
@router.get("/models", include_in_schema=False)
async def list_models(request: Request) -> Response:
    """List models and aliases that pin a prompt or dimensions, then OpenAI's names; other aliases only answer."""
    if gemini_models.is_from_google(request):
        return await gemini_models.list_models(request)
    state = bind_dialect(request, OPENAI.name)
    authenticate(request, state.keys)
    models = state.service.models
    names = {public_name(name): slot for slot, name in models.listed()}
    # Behind the models' own names, as clients that choose by themselves take the first.
    for slot in models.visible():
        for name in _listed_aliases(models, slot):
            names.setdefault(name, slot)
    data = [_model_object(models, slot, name) for name, slot in names.items()]
    for row in data:
        for long in ("quality", "reports"):  # only the description of a single model has these
            row.pop(long, None)
    return json_response({"object": "list", "data": data})


@router.get("/v1/models/{model:path}/quality", **MODEL_QUALITY_DOC)
async def model_quality(request: Request, model: Annotated[str, MODEL_PATH]) -> Response:
    """Tell what was measured of a model: what smaller vectors cost, and every report that is kept beside it."""
    row = _described(request, model)
    return json_response(
        {
            "object": "model.quality",
            "model": row["id"],
            "space": row.get("space"),
            "quality": row.get("quality"),
            "reports": row.get("reports") or {},
        }
    )


@router.get("/v1/models/{model:path}/card", **MODEL_CARD_DOC)
async def model_card(request: Request, model: Annotated[str, MODEL_PATH]) -> Response:
    """Write a page about a model: what it is, its languages, what was measured here; `format=markdown` for that."""
    row = _described(request, model)
    form = request.query_params.get("format", "html")
    if form not in CARD_FORMATS:
        raise InputError(f"'format' must be one of: {', '.join(CARD_FORMATS)}", param="format")
    written = card_page(row) if form == "html" else card_markdown(row)
    return Response(written, media_type=CARD_FORMATS[form])


@router.get("/v1/models/{model:path}", **MODEL_DOC)
@router.get("/models/{model:path}", include_in_schema=False)
async def retrieve_model(request: Request, model: Annotated[str, MODEL_PATH]) -> Response:
    """Describe one model; names with slashes come raw or percent-encoded."""
    if gemini_models.is_from_google(request):
        return await gemini_models.get_model(request, model)
    return json_response(_described(request, model))


def _described(request: Request, model: str) -> dict[str, Any]:
    """Check a request's key, and describe the model that its path names."""
    state = bind_dialect(request, OPENAI.name)
    authenticate(request, state.keys)
    models = state.service.models
    return _model_object(models, models.find(model), model)


def _listed_aliases(models: ModelRegistry, slot: ModelSlot) -> list[str]:
    """Return the aliases of a model that are listed although they stand for nothing but the model.

    Some clients, n8n among them, offer only ids that contain "embed".
    """
    if slot.spec is not None and not slot.gives(OutputKind.DENSE):
        return []
    return [name for name in models.aliases(slot) if name.startswith(LISTED_ALIASES)]


def _model_object(models: ModelRegistry, slot: ModelSlot, name: str) -> dict[str, Any]:
    """Return OpenAI's four keys, then what a caller should know; much of it is null until the model has been loaded."""
    preset = slot.preset(name)
    model = None if slot.model is None else preset.variant(slot.model)
    spec = slot.spec if model is None else model.spec
    row = {
        "id": name,
        "object": "model",
        "created": spec.created_s if spec is not None else 0,
        "owned_by": "nestvec",
        "root": public_name(slot.name),
        "aliases": public_names(models.aliases(slot)),
        "pinned": None if preset is NO_PRESET else _pinned(preset),
        "state": slot.state,
    }
    if (text := slot.text_form(name)) != PLAIN_TEXTS:
        row["text"] = {
            "unicode": text.unicode,
            "strip": text.strip,
            "template": None if text.template is None else text.template.source,
        }
    recipe = slot.recipe if isinstance(slot, RecipeSlot) else None
    if recipe is not None:
        row |= recipe_object(recipe, slot.parts)
    if spec is None:
        return {**row, **dict.fromkeys(KNOWN_ONCE_LOADED)}
    joins = recipe is not None and recipe.combination is Combination.CONCAT
    return {
        **row,
        "max_model_len": spec.max_tokens,
        "dimensions": {
            "native": spec.hidden_size,
            # The beginning of a join leaves whole parts out.
            "range": [spec.hidden_size if joins else 1, spec.hidden_size],
            "trained": list(spec.trained_dimensions),
        },
        "outputs": list(spec.kinds),
        "input_modalities": ["text"] if spec.pictures is None else ["text", "image"],
        "labels": list(spec.labels),
        "pooling": spec.pooling,
        "normalized": spec.is_normalized,
        "prompts": sorted(spec.prompts),
        "space": _space_of(preset, slot),
        "quantization": None if model is None else quantization(model.quantizer),
        "architecture": spec.architecture,
        "precision": spec.precision,
        "provider": None if model is None else model.core.backend_info.provider,
        "reproducibility": None if model is None else (dict(model.bound) or None),
        "license": spec.license,
        "languages": list(spec.languages),
        "language_count": spec.language_count or None,
        "parameters": spec.parameters or None,
        "source": without_paths(spec.source),
        "layers": None if model is None else layers(model),
        "maps": []
        if model is None
        else [map_object(affine_map) for affine_map in model.maps.values()],
        "quality": None if model is None else model.quality,
        "reports": None if model is None else dict(model.reports),
    }


def _pinned(preset: AliasPreset) -> dict[str, Any]:
    """Return what an alias stands for beside its model."""
    profile = {"layers": preset.layers, "map": preset.map_id, "output_dtype": preset.output_dtype}
    given = {key: value for key, value in profile.items() if value is not None}
    return {"prompt_name": preset.prompt_name, "dimensions": preset.dimensions, **given}


def _space_of(preset: AliasPreset, slot: ModelSlot) -> str | None:
    """Return the space of a name's vectors; None while the way to them is unknown, as the model is not in memory."""
    if slot.model is None:
        has_own = preset.layers is not None or preset.map_id is not None or preset.text is not None
        return None if slot.spec is None or has_own else slot.spec.space
    model = preset.variant(slot.model)
    if preset.layers is None and preset.map_id is None:
        return model.spec.space
    # What may be asked for was checked when the name was given.
    return resolve_plan(preset.fill(EmbedCall(())), model, allows_untrained=True).space


def recipe_object(recipe: Recipe, slots: Sequence[ModelSlot]) -> dict[str, Any]:
    """Return what a recipe is made of, and how; what it does not say of a part is left out."""
    weighs = recipe.combination in (Combination.CONCAT, Combination.MEAN)
    rows = []
    for part, slot in zip(recipe.parts, slots, strict=True):
        told = {
            "view": part.view or None,
            "when": None if part.condition is None else part.condition.text,
            "weight": part.weight if weighs else None,
            "dimensions": part.dimensions,
            "prompt": part.prompt,
            "prompt_name": part.prompt_name,
            "layers": part.layers,
            "map": part.map_name,
        }
        given = {name: value for name, value in told.items() if value is not None}
        rows.append({"model": public_name(part.model or slot.name), **given})
    return {"combine": recipe.combination.value, "parts": rows}


def layers(model: ServedModel) -> dict[str, Any] | None:
    """Return a model's early exits, and what makes each of them useful; None where it always runs all its layers."""
    deepest = model.core.backend_info.layers
    if not deepest:
        return None
    fitted = {layer: exit_map.name for layer, exit_map in fitted_exits(model).items()}
    return {
        "native": deepest,
        "trained": list(model.spec.trained_layers),
        "fitted": {str(layer): name for layer, name in sorted(fitted.items())},
    }


def map_object(affine_map: AffineMap) -> dict[str, Any]:
    """Return what a map does, and what was measured when it was fitted."""
    described = {
        "name": affine_map.name,
        "kind": affine_map.kind,
        "space": affine_map.space,
        "dimensions": affine_map.width,
        "layers": affine_map.layers or None,
        "target": affine_map.target_model or None,
        "target_space": affine_map.target or None,
        "figures": dict(affine_map.figures),
    }
    if not affine_map.labels:
        return described
    learned, of_pictures = affine_map.label_calibration, {}
    if affine_map.has_picture_anchors:
        of_pictures["anchors"] = "pictures"
    if learned is not None and learned.is_of_pictures:
        of_pictures["calibrated_on"] = "pictures"
    return {
        **described,
        "labels": list(affine_map.labels),
        "template": affine_map.template,
        "calibrated": learned is not None,
        **of_pictures,
    }


def quantization(quantizer: Quantizer) -> dict[str, Any]:
    """Return where the ranges of a model's int8 and uint8 vectors come from."""
    return {"id": quantizer.id, "source": quantizer.source}
