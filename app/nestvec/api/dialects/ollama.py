"""The Ollama dialect: embeddings, and what its clients look up before they ask for one.

Source: Ollama's API and what its Python and Node clients, langchain's and litellm's send and need (api-contract 5).
"""

import datetime
import hashlib
import math
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OLLAMA
from nestvec.api.http.auth import let_in
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import (
    Asked,
    embed,
    enter,
    hold_model,
    open_as,
    result_headers,
)
from nestvec.api.requests.encoding import array_json, rows_json
from nestvec.api.requests.fields import (
    Body,
    as_integer,
    boolean_field,
    integer_field,
    text_field,
    texts_field,
)
from nestvec.api.schemas import ollama as docs
from nestvec.api.state import ApiState
from nestvec.engine.models.served_model import ModelSpec, ServedModel
from nestvec.engine.types import EmbedCall, OutputKind, Truncation
from nestvec.errors import InputError

router = APIRouter(route_class=RawRoute, tags=[OLLAMA.name])

FIELDS: Final = frozenset(
    {"model", "name", "input", "prompt", "truncate", "dimensions", "options", "keep_alive"}
)
# Of the API that is spoken here; some programs ask for a least version.
API_VERSION: Final = "0.12.0"
LEVELS: Final = {"fp32": "F32", "bf16": "BF16", "int8": "Q8_0", "int8-accurate": "Q8_0"}
BYTES_A_WEIGHT: Final = {"F32": 4, "BF16": 4, "Q8_0": 1}
FOREVER: Final = "2318-01-01T00:00:00Z"  # what Ollama itself says of a model that is kept


@router.post("/api/embed", **docs.EMBED_DOC)
async def embed_route(request: Request) -> Response:
    """Embed a text or texts; an empty request only asks whether the model is there."""
    asked = await open_as(request, OLLAMA)
    asked.check_fields(FIELDS)
    name, model = await _model(asked)
    if asked.body.get("input") in (None, "", []):
        return json_response({"model": name, "embeddings": []})
    texts, is_list = texts_field(asked.body, "input", check_count=asked.check_count)
    call = EmbedCall(
        inputs=texts,
        model=name,
        dimensions=_dimensions(asked.body, model.spec.hidden_size),
        truncate=_truncation(asked.body),
        max_tokens=_context(asked.body),
    )
    result = await embed(asked, call, is_list=is_list)
    rows = await rows_json(result.vectors, as_base64=False)
    times = result.timings
    content = (
        b'{"model":%s,"embeddings":[%s],"total_duration":%d,"load_duration":%d,'
        b'"prompt_eval_count":%d}'
    ) % (
        orjson.dumps(name or result.model),
        b",".join(rows),
        round(times.total_s * 1e9),
        round(times.queue_wait_s * 1e9),
        sum(result.input_tokens),
    )
    return Response(content, headers=result_headers(result, call), media_type="application/json")


@router.post("/api/embeddings", **docs.EMBEDDINGS_DOC)
async def embeddings_route(request: Request) -> Response:
    """Embed one text in the old way, not normalised."""
    asked = await open_as(request, OLLAMA)
    asked.check_fields(FIELDS)
    name, _ = await _model(asked)
    prompt = text_field(asked.body, "prompt")
    if not prompt:
        return json_response({"embedding": []})
    call = EmbedCall(
        inputs=[prompt],
        model=name,
        normalize=False,
        max_tokens=_context(asked.body),
    )
    result = await embed(asked, call, is_list=False, source="prompt")
    content = b'{"embedding":%s}' % array_json(result.vectors[0])
    return Response(content, headers=result_headers(result, call), media_type="application/json")


@router.get("/api/tags", **docs.TAGS_DOC)
@router.head("/api/tags", include_in_schema=False)
async def tags(request: Request) -> Response:
    """What is served, by Ollama's names."""
    state = _enter(request)
    return json_response(
        {
            "models": [
                _listed(slot.spec, slot.graph_bytes, name)
                for slot, name in state.service.models.listed()
                if slot.spec is not None
            ]
        }
    )


@router.get("/api/ps", **docs.PS_DOC)
async def running(request: Request) -> Response:
    """Those in memory."""
    state = _enter(request)
    listed = [(slot.model, name) for slot, name in state.service.models.listed()]
    rows = [
        {
            **_listed(model.spec, model.graph_bytes, name),
            "expires_at": FOREVER,
            "size_vram": 0 if model.core.traits.provider == "cpu" else model.graph_bytes,
            "context_length": model.spec.max_tokens,
        }
        for model, name in listed
        if model is not None
    ]
    return json_response({"models": rows})


@router.post("/api/show", **docs.SHOW_DOC)
async def show(request: Request) -> Response:
    """Describe a model."""
    asked = await open_as(request, OLLAMA)
    name, model = await _model(asked)
    spec = model.spec
    family = spec.architecture or "unknown"
    listed = _listed(spec, model.graph_bytes, name or spec.name)
    return json_response(
        {
            "details": listed["details"],
            "model_info": {
                "general.architecture": family,
                "general.parameter_count": _parameters(spec, model.graph_bytes),
                f"{family}.embedding_length": spec.hidden_size,
                f"{family}.context_length": spec.max_tokens,
                "nestvec.space": spec.space,
            },
            "capabilities": ["embedding"],
            "license": spec.license,
            "modified_at": listed["modified_at"],
        }
    )


@router.post("/api/pull", **docs.PULL_DOC)
async def pull(request: Request) -> Response:
    """Succeed for what is served; some programs ask unasked."""
    asked = await open_as(request, OLLAMA)
    await _model(asked)
    return json_response({"status": "success"})


@router.get("/api/version", **docs.VERSION_DOC)
@router.head("/api/version", include_in_schema=False)
async def version(request: Request) -> Response:
    """Of the API."""
    enter(request, OLLAMA.name)
    return json_response({"version": API_VERSION})


def _enter(request: Request) -> ApiState:
    state = enter(request, OLLAMA.name)
    let_in(request, state.keys)
    return state


async def _model(asked: Asked) -> tuple[str, ServedModel]:
    """The name given, under either of its fields, and what it means."""
    name = text_field(asked.body, "model") or text_field(asked.body, "name") or ""
    return name, await hold_model(asked.request, asked.state, name, OutputKind.DENSE)


def _dimensions(body: Body, native: int) -> int | None:
    """Ollama ignores 0, and whatever is not below the native size."""
    asked = integer_field(body, "dimensions")
    if asked is not None and asked < 0:
        raise InputError("'dimensions' must not be negative", param="dimensions")
    return asked if asked and asked < native else None


def _truncation(body: Body) -> Truncation | None:
    return Truncation.ERROR if boolean_field(body, "truncate") is False else None


def _context(body: Body) -> int | None:
    """`num_ctx`, which caps the tokens of an input; 0 and negative numbers say nothing.

    Raises:
        InputError: Options are no object, or it is no integer.
    """
    options = body.get("options")
    if options is None:
        return None
    if not isinstance(options, dict):
        raise InputError("'options' must be an object", param="options", code="invalid_type")
    value = options.get("num_ctx")
    number = as_integer(value)
    if value is not None and number is None:
        raise InputError("'options.num_ctx' must be an integer", param="options.num_ctx")
    return number if number is not None and number > 0 else None


def _listed(spec: ModelSpec, graph_bytes: int, name: str) -> dict[str, Any]:
    full = name if ":" in name else f"{name}:latest"
    moment = datetime.datetime.fromtimestamp(spec.created_s, datetime.UTC)
    return {
        "name": full,
        "model": full,
        "modified_at": moment.isoformat().replace("+00:00", "Z"),
        "size": graph_bytes,
        "digest": hashlib.sha256(spec.space.encode()).hexdigest(),
        "details": {
            "parent_model": "",
            "format": "onnx",
            "family": spec.architecture,
            "families": [spec.architecture],
            "parameter_size": _rounded(_parameters(spec, graph_bytes)),
            "quantization_level": _level(spec),
        },
    }


def _level(spec: ModelSpec) -> str:
    return LEVELS.get(spec.precision, "F32")


def _parameters(spec: ModelSpec, graph_bytes: int) -> int:
    """About how many weights the graph holds."""
    return graph_bytes // BYTES_A_WEIGHT[_level(spec)]


def _rounded(count: int) -> str:
    """As `22.7M`."""
    if count < 1:
        return "0"
    power = min(3, int(math.log10(count) // 3))
    return f"{count / 1000**power:.4g}{('', 'K', 'M', 'B')[power]}"
