"""The OpenAI dialect: embeddings and models.

Source: OpenAI's API reference for `POST /v1/embeddings` and `GET /v1/models`, and what its Python and Node
clients were seen to send and need (the project's api-contract, section 1).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from app.api.calls import (
    VOCABULARY_HEADER,
    check_fields,
    deadline_s,
    decode_tokens,
    embed_for,
    note_facts,
    open_body,
    priority,
)
from app.api.encoding import rows_json
from app.api.fields import (
    Body,
    Inputs,
    boolean_field,
    choice_field,
    integer_field,
    parse_inputs,
    text_field,
)
from app.api.openai_schema import EMBEDDINGS_DOC, MODEL_DOC, MODELS_DOC
from app.api.raw_route import RawRoute, json_response
from app.api.state import ApiState, api_state
from app.engine.registry import ServedModel
from app.engine.types import EmbedCall, EmbedResult, Truncation
from app.errors import (
    AccessError,
    BodyTooLargeError,
    InputError,
    InternalError,
    NestvecError,
    QueueFullError,
)

router = APIRouter(route_class=RawRoute, tags=["openai"])

# Words of several vendors for one role; the model's own prompt for it is used (api-contract 4.7).
ROLE_WORDS: Final[Mapping[str, str]] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "document": "passage",
    "passage": "passage",
    "search_document": "passage",
    "retrieval.passage": "passage",
    "classification": "classify",
    "clustering": "cluster",
    "separation": "cluster",
    "text-matching": "similarity",
    "similarity": "similarity",
}
TRUNCATE_WORDS: Final[Mapping[object, Truncation]] = {
    True: Truncation.END,
    False: Truncation.ERROR,
    "error": Truncation.ERROR,
    "none": Truncation.ERROR,
    "end": Truncation.END,
    "start": Truncation.START,
}
FIELDS: Final = frozenset(
    {
        *("input", "model", "dimensions", "encoding_format", "user"),
        *("normalize", "truncate", "prompt", "prompt_name", "input_type", "task"),
        *("output_dtype", "layers", "map", "late_chunking"),
    }
)


@router.post("/v1/embeddings", **EMBEDDINGS_DOC)
@router.post("/embeddings", include_in_schema=False)
async def create_embeddings(request: Request) -> Response:
    """Embed texts or token ids; vectors come in input order."""
    state = api_state(request)
    key_id, body = await open_body(request, state)
    check_known_fields(body, state)
    # The model first: an unknown one is the more helpful answer than a fault in the input.
    model = text_field(body, "model") or ""
    state.service.models.resolve(model)
    as_base64 = choice_field(body, "encoding_format", ("float", "base64")) == "base64"
    inputs, is_list = parse_inputs(body.get("input"), check_count=state.service.check_count)
    try:
        vocabulary = request.headers.get(VOCABULARY_HEADER)
        given = await decode_tokens(state, inputs, vocabulary=vocabulary)
        call = parse_call(body, given)
        call = call_with_context(call, request, state, key_id=key_id)
        result = await embed_for(request, state, call)
    except (InputError, InternalError) as error:
        if not is_list:
            error.input_index = None
        raise
    note_facts(
        request,
        dialect="openai",
        model=result.model,
        key_id=key_id,
        inputs=len(inputs),
        tokens=sum(result.input_tokens),
        queue_wait_ms=round(result.timings.queue_wait_s * 1000, 1),
    )
    return await _embeddings_response(result, model or result.model, as_base64=as_base64)


@router.get("/v1/models", **MODELS_DOC)
@router.get("/models", include_in_schema=False)
async def list_models(request: Request) -> Response:
    """List what is served; aliases are not listed, though they answer."""
    state = api_state(request)
    state.auth.check(request.headers)
    data = [_model_object(model) for model in state.service.models.all()]
    return json_response({"object": "list", "data": data})


@router.get("/v1/models/{model:path}", **MODEL_DOC)
@router.get("/models/{model:path}", include_in_schema=False)
async def retrieve_model(request: Request, model: str) -> Response:
    """Describe one model; names with slashes come raw or percent-encoded."""
    state = api_state(request)
    state.auth.check(request.headers)
    return json_response(_model_object(state.service.models.resolve(model), shown_as=model))


def parse_call(body: Body, inputs: Inputs) -> EmbedCall:
    """Read the options of a body.

    Raises:
        InputError: A field of the wrong type, or one that would change the vectors and is not available.
    """
    _refuse_unavailable(body)
    return EmbedCall(
        inputs=inputs,
        model=text_field(body, "model") or "",
        dimensions=integer_field(body, "dimensions"),
        normalize=boolean_field(body, "normalize"),
        truncate=_truncation(body.get("truncate")),
        prompt=text_field(body, "prompt"),
        prompt_name=text_field(body, "prompt_name"),
        prompt_role=_role(body),
        layers=integer_field(body, "layers"),
        map_id=text_field(body, "map"),
    )


def call_with_context(
    call: EmbedCall, request: Request, state: ApiState, *, key_id: str
) -> EmbedCall:
    """Add what comes from headers: key, class and deadline."""
    return dataclasses.replace(
        call,
        key_id=key_id,
        priority=priority(request),
        deadline_s=deadline_s(request, state),
    )


def openai_error(error: NestvecError, status: int, request_id: str) -> dict[str, Any]:
    """An error body that the OpenAI, Voyage, Jina and Cohere clients each understand.

    OpenAI's clients read `error`, Voyage's and Jina's need `detail`, Cohere's shows `message`; the superset
    was tried with each (api-contract 0.3).
    """
    message = error.message
    if isinstance(error, InternalError):
        message = f"{message} (request id {request_id})"
    fault = {
        "message": message,
        "type": _error_type(error, status),
        "param": _param(error),
        "code": error.code,
    }
    return {"error": fault, "detail": message, "message": message}


def _error_type(error: NestvecError, status: int) -> str:
    if isinstance(error, InputError) and error.code == "max_tokens_per_request":
        return error.code
    if isinstance(error, QueueFullError):
        return "requests"
    if isinstance(error, InputError | AccessError | BodyTooLargeError) or status < 500:  # noqa: PLR2004
        return "invalid_request_error"
    return "server_error"


def _param(error: NestvecError) -> str | None:
    """`input[i]` for an item of a list, else the field's name."""
    index = getattr(error, "input_index", None)
    if index is not None:
        return f"input[{index}]"
    return getattr(error, "param", None)


def _truncation(value: object) -> Truncation | None:
    if value is None:
        return None
    word = value.lower() if isinstance(value, str) else value
    if isinstance(word, bool | str) and word in TRUNCATE_WORDS:
        return TRUNCATE_WORDS[word]
    raise InputError("'truncate' must be true, false, 'error', 'start' or 'end'", param="truncate")


def _role(body: Body) -> str | None:
    """What the texts are for, by either vendor's word for it; unknown words pass as prompt names do."""
    for name in ("input_type", "task"):
        word = text_field(body, name)
        if word is not None:
            return ROLE_WORDS.get(word.lower(), word)
    return None


def _refuse_unavailable(body: Body) -> None:
    """Ignoring these would change the vectors asked for, so they are refused until they are served."""
    if body.get("output_dtype") not in (None, "float", "float32"):
        raise InputError("'output_dtype' must be 'float' here", param="output_dtype")
    if boolean_field(body, "late_chunking"):
        raise InputError("'late_chunking' is not available", param="late_chunking")


async def _embeddings_response(result: EmbedResult, model: str, *, as_base64: bool) -> Response:
    rows = await rows_json(result.vectors, as_base64=as_base64)
    body = embeddings_json(rows, model, sum(result.input_tokens))
    headers = {"x-embed-space": result.space}
    if truncated := sum(result.is_truncated):
        headers["x-embed-truncated"] = str(truncated)
    return Response(body, headers=headers, media_type="application/json")


def embeddings_json(rows: Sequence[bytes], model: str, tokens: int) -> bytes:
    """An answer's body, from its vectors as JSON."""
    items = [
        b'{"object":"embedding","index":%d,"embedding":%s}' % (index, row)
        for index, row in enumerate(rows)
    ]
    return b'{"object":"list","data":[%s],"model":%s,"usage":%s}' % (
        b",".join(items),
        orjson.dumps(model),
        orjson.dumps({"prompt_tokens": tokens, "total_tokens": tokens}),
    )


def check_known_fields(body: Body, state: ApiState) -> None:
    """Refuse fields that this dialect does not know, where the operator asked for that.

    Raises:
        InputError: Names the first one.
    """
    check_fields(body, FIELDS, state)


def _model_object(model: ServedModel, *, shown_as: str | None = None) -> dict[str, Any]:
    """OpenAI's four keys, then what a caller should know of the model."""
    spec = model.spec
    return {
        "id": shown_as or spec.name,
        "object": "model",
        "created": spec.created_s,
        "owned_by": "nestvec",
        "root": spec.name,
        "aliases": list(model.aliases),
        "max_model_len": spec.max_tokens,
        "dimensions": {
            "native": spec.hidden_size,
            "range": [1, spec.hidden_size],
            "trained": list(spec.trained_dimensions),
        },
        "pooling": spec.pooling,
        "normalized": spec.is_normalized,
        "prompts": sorted(spec.prompts),
        "space": spec.space,
        "architecture": spec.architecture,
        "precision": spec.precision,
        "provider": model.core.backend.provider,
        "license": spec.license,
        "source": spec.source,
    }
