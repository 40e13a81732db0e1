"""The Ollama dialect: embeddings, and the routes that its clients call before they ask for one.

Source: Ollama's API documentation. What its Python and Node clients, langchain's and litellm's send and need is in
docs/wire-behaviour.md, "Ollama".
"""

import datetime
import hashlib
import math
from types import MappingProxyType
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OLLAMA
from nestvec.api.http.auth import authenticate
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import ApiRequest, acquire_model, bind_dialect, read_request
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.fields import (
    Body,
    as_integer,
    boolean_field,
    content_field,
    integer_field,
    option,
    text_field,
    texts_field,
)
from nestvec.api.requests.headers import result_headers
from nestvec.api.requests.json_parts import join_parts, listed, object_parts
from nestvec.api.requests.vector_json import array_json, rows_json
from nestvec.api.schemas import ollama as docs
from nestvec.api.state import ApiState
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import EmbedCall, OutputKind, Truncation
from nestvec.errors import InputError
from nestvec.system.public_names import public_name

router = APIRouter(route_class=RawRoute, tags=[OLLAMA.name])

FIELDS: Final = frozenset(
    {"model", "name", "input", "prompt", "truncate", "dimensions", "options", "keep_alive"}
)
# Inside `options`: what is read, and what is of no consequence for vectors (Ollama's docs/modelfile.md).
OPTION_FIELDS: Final = frozenset({"num_ctx"})
OTHER_OPTIONS: Final = frozenset(
    {
        *("num_keep", "num_predict", "num_batch", "num_gpu", "main_gpu", "num_thread", "seed"),
        *("temperature", "top_k", "top_p", "min_p", "typical_p", "tfs_z", "stop"),
        *("repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty"),
        *("penalize_newline", "mirostat", "mirostat_tau", "mirostat_eta", "low_vram", "f16_kv"),
        *("use_mmap", "use_mlock", "numa", "vocab_only", "logits_all", "embedding_only"),
    }
)
INSIDE: Final = MappingProxyType({"options": OPTION_FIELDS | OTHER_OPTIONS})
# The version of Ollama whose API is spoken here; some programs demand a minimum.
API_VERSION: Final = "0.12.0"
# Ollama's word for each precision of ours.
QUANTIZATION_LEVELS: Final = {
    "fp32": "F32",
    "bf16": "BF16",
    "int8": "Q8_0",
    "int8-accurate": "Q8_0",
}
BYTES_PER_WEIGHT: Final = {"F32": 4, "BF16": 4, "Q8_0": 1}
# What Ollama itself says of a model that is kept in memory.
FOREVER: Final = "2318-01-01T00:00:00Z"


@router.post("/api/embed", **docs.EMBED_DOC)
async def embed_route(request: Request) -> Response:
    """Embed a text or several; an empty request only asks for the model to be loaded."""
    api_request = await read_request(request, OLLAMA)
    api_request.check_fields(FIELDS, INSIDE)
    _refuse_other_routes_field(api_request.body, "input", "prompt", "/api/embeddings")
    name, model = await _acquire_model(api_request)
    if api_request.body.get("input") in (None, "", []):
        return json_response({"model": name, "embeddings": []})
    texts, is_list = texts_field(api_request.body, "input", check_count=api_request.check_count)
    call = EmbedCall(
        inputs=texts,
        model=name,
        dimensions=_dimensions(api_request.body, model.spec.hidden_size),
        truncate=_truncation(api_request.body),
        max_tokens=_max_tokens(api_request.body),
    )
    result = await embed(api_request, call, is_list=is_list)
    rows = await rows_json(result.vectors, as_base64=False)
    times = result.timings
    fields = {
        "model": name or result.model,
        "embeddings": None,
        "total_duration": round(times.total_s * 1e9),
        "load_duration": round(times.queue_wait_s * 1e9),
        "prompt_eval_count": sum(result.input_tokens),
    }
    content = await join_parts(object_parts(fields, {"embeddings": listed(rows)}))
    return Response(content, headers=result_headers(result, call), media_type="application/json")


@router.post("/api/embeddings", **docs.EMBEDDINGS_DOC)
async def embeddings_route(request: Request) -> Response:
    """Embed one text by Ollama's older route, without normalizing the vector."""
    api_request = await read_request(request, OLLAMA)
    api_request.check_fields(FIELDS, INSIDE)
    _refuse_other_routes_field(api_request.body, "prompt", "input", "/api/embed")
    name, _ = await _acquire_model(api_request)
    prompt = content_field(api_request.body, "prompt")
    if not prompt:
        return json_response({"embedding": []})
    call = EmbedCall(
        inputs=[prompt],
        model=name,
        normalize=False,
        max_tokens=_max_tokens(api_request.body),
    )
    result = await embed(api_request, call, is_list=False, source="prompt")
    content = b'{"embedding":%s}' % array_json(result.vectors[0])
    return Response(content, headers=result_headers(result, call), media_type="application/json")


@router.get("/api/tags", **docs.TAGS_DOC)
async def tags(request: Request) -> Response:
    """List the models that are served, with a tag, as Ollama does."""
    state = _bind_dialect(request)
    return json_response(
        {
            "models": [
                _model_row(slot.spec, slot.graph_bytes, public_name(name))
                for slot, name in state.service.models.listed()
                if slot.spec is not None
            ]
        }
    )


@router.get("/api/ps", **docs.PS_DOC)
async def running(request: Request) -> Response:
    """List the models that are in memory."""
    state = _bind_dialect(request)
    models = [(slot.model, name) for slot, name in state.service.models.listed()]
    rows = [
        {
            **_model_row(model.spec, model.graph_bytes, public_name(name)),
            "expires_at": FOREVER,
            "size_vram": 0 if model.core.backend_info.provider == "cpu" else model.graph_bytes,
            "context_length": model.spec.max_tokens,
        }
        for model, name in models
        if model is not None
    ]
    return json_response({"models": rows})


@router.post("/api/show", **docs.SHOW_DOC)
async def show(request: Request) -> Response:
    """Describe a model that is served."""
    api_request = await read_request(request, OLLAMA)
    name, model = await _acquire_model(api_request)
    spec = model.spec
    family = spec.architecture or "unknown"
    row = _model_row(spec, model.graph_bytes, name or spec.name)
    return json_response(
        {
            "details": row["details"],
            "model_info": {
                "general.architecture": family,
                "general.parameter_count": _parameter_count(spec, model.graph_bytes),
                f"{family}.embedding_length": spec.hidden_size,
                f"{family}.context_length": spec.max_tokens,
                "nestvec.space": spec.space,
            },
            "capabilities": ["embedding"],
            "license": spec.license,
            "modified_at": row["modified_at"],
        }
    )


@router.post("/api/pull", **docs.PULL_DOC)
async def pull(request: Request) -> Response:
    """Succeed for a model that is served, without doing anything: some programs pull of their own accord."""
    api_request = await read_request(request, OLLAMA)
    await _acquire_model(api_request)
    return json_response({"status": "success"})


@router.get("/api/version", **docs.VERSION_DOC)
async def version(request: Request) -> Response:
    """Return the version of Ollama whose API is spoken here."""
    bind_dialect(request, OLLAMA.name)
    return json_response({"version": API_VERSION})


def _bind_dialect(request: Request) -> ApiState:
    """Take in a request without a body: answer in this dialect, and check its key."""
    state = bind_dialect(request, OLLAMA.name)
    authenticate(request, state.keys)
    return state


async def _acquire_model(api_request: ApiRequest) -> tuple[str, ServedModel]:
    """Return the name as the caller wrote it, in either of its fields, and the model that it means, loaded."""
    name = text_field(api_request.body, "model") or text_field(api_request.body, "name") or ""
    return name, await acquire_model(api_request.request, api_request.state, name, OutputKind.DENSE)


def _refuse_other_routes_field(body: Body, own: str, other: str, route: str) -> None:
    """Refuse a body whose text is in the field of the other route: Ollama answers it without a vector.

    Args:
        body: As parsed from JSON.
        own: The field of the route that was asked.
        other: The field of the other route.
        route: That other route.

    Raises:
        InputError: The text is in `other`.
    """
    if body.get(other) and not body.get(own):
        raise InputError(
            f"this route reads its text from '{own}'; '{other}' is the field of {route}",
            param=own,
            code="unknown_field",
        )


def _dimensions(body: Body, native: int) -> int | None:
    """Read `dimensions`; 0, and whatever is not below the native size, is ignored, as Ollama does."""
    dimensions = integer_field(body, "dimensions")
    if dimensions is not None and dimensions < 0:
        raise InputError("'dimensions' must not be negative", param="dimensions")
    return dimensions if dimensions and dimensions < native else None


def _truncation(body: Body) -> Truncation | None:
    return Truncation.ERROR if boolean_field(body, "truncate") is False else None


def _max_tokens(body: Body) -> int | None:
    """Read `options.num_ctx`, which caps the tokens of an input; 0 and negative numbers are ignored.

    Raises:
        InputError: `options` is not an object, or `num_ctx` not an integer.
    """
    options = option(body, "options")
    if options is None:
        return None
    if not isinstance(options, dict):
        raise InputError("'options' must be an object", param="options", code="invalid_type")
    value = option(options, "num_ctx")
    max_tokens = as_integer(value)
    if value is not None and max_tokens is None:
        raise InputError("'options.num_ctx' must be an integer", param="options.num_ctx")
    return max_tokens if max_tokens is not None and max_tokens > 0 else None


def _model_row(spec: ModelSpec, graph_bytes: int, name: str) -> dict[str, Any]:
    tagged_name = name if ":" in name else f"{name}:latest"
    created = datetime.datetime.fromtimestamp(spec.created_s, datetime.UTC)
    return {
        "name": tagged_name,
        "model": tagged_name,
        "modified_at": created.isoformat().replace("+00:00", "Z"),
        "size": graph_bytes,
        "digest": hashlib.sha256(spec.space.encode()).hexdigest(),
        "details": {
            "parent_model": "",
            "format": "onnx",
            "family": spec.architecture,
            "families": [spec.architecture],
            "parameter_size": _short_count(_parameter_count(spec, graph_bytes)),
            "quantization_level": _quantization_level(spec),
        },
    }


def _quantization_level(spec: ModelSpec) -> str:
    return QUANTIZATION_LEVELS.get(spec.precision, "F32")


def _parameter_count(spec: ModelSpec, graph_bytes: int) -> int:
    """Return how many weights a model has: as its card says, else estimated from its graph's bytes."""
    return spec.parameters or graph_bytes // BYTES_PER_WEIGHT[_quantization_level(spec)]


def _short_count(count: int) -> str:
    """Return a number in the form `22.7M`."""
    if count < 1:
        return "0"
    power = min(3, int(math.log10(count) // 3))
    return f"{count / 1000**power:.4g}{('', 'K', 'M', 'B')[power]}"
