"""vLLM's own routes: pooling of any kind, and scores of pairs.

Source: vLLM's pooling server (api-contract 7). Its fields of `/v1/embeddings` are in `openai_body.py`.
"""

import dataclasses
import time
import uuid
from typing import Any, Final

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.dialects.openai_body import (
    FIELDS,
    parse_call,
    parse_encoding,
    parse_limits,
    refuse_chat,
)
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import (
    VOCABULARY_HEADER,
    Asked,
    decode_tokens,
    embed,
    open_as,
    result_headers,
)
from nestvec.api.requests.encoding import in_byte_order, rows_json
from nestvec.api.requests.fields import Body, choice_field, integer_field, parse_inputs, texts_field
from nestvec.api.schemas.vllm import CLASSIFY_DOC, POOLING_DOC, SCORE_DOC
from nestvec.api.scoring.relevance import Texts, score
from nestvec.engine.models.served_model import ModelSpec
from nestvec.engine.options import of_kind
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.engine.vectors.postprocess import probabilities
from nestvec.errors import InputError, UnsupportedError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

TASKS: Final = ("embed", "token_embed", "encode", "classify", "token_classify", "score", "plugin")
KINDS: Final = {
    "embed": OutputKind.DENSE,
    "encode": OutputKind.DENSE,
    "token_embed": OutputKind.TOKENS,
    "classify": OutputKind.LABELS,
    "score": OutputKind.LABELS,
}
# Pairs may be spelled in four ways; the second names say what the texts are for.
PAIRS: Final = (
    ("text_1", "text_2", None, None),
    ("queries", "documents", "query", "passage"),
    ("queries", "items", "query", "passage"),
    ("data_1", "data_2", None, None),
)
POOLING_FIELDS: Final = FIELDS | {"pool_factor"}
CLASSIFY_FIELDS: Final = frozenset(
    {
        *("model", "input", "truncate", "truncate_prompt_tokens", "truncation_side"),
        *("priority", "request_id", "user"),
    }
)
SCORE_FIELDS: Final = frozenset(
    {
        *(name for pair in PAIRS for name in pair[:2]),
        *("model", "truncate", "truncate_prompt_tokens", "truncation_side"),
        *("priority", "request_id", "user"),
    }
)


@router.post("/pooling", **POOLING_DOC)
async def pooling(request: Request) -> Response:
    """Vectors of inputs, or of each of their tokens."""
    asked = await open_as(request, OPENAI)
    asked.check_fields(POOLING_FIELDS)
    model = await asked.model()
    task = choice_field(asked.body, "task", TASKS) or default_task(model.spec)
    if KINDS.get(task) not in model.spec.kinds:
        raise UnsupportedError(
            f"task '{task}' is not available: {model.spec.name} is {of_kind(model.spec)}",
            param="task",
        )
    encoding = parse_encoding(asked.body)
    if encoding.form.startswith("bytes"):
        raise InputError(
            "'encoding_format' must be 'float' or 'base64' here", param="encoding_format"
        )
    refuse_chat(asked.body)
    inputs, is_list = parse_inputs(asked.body.get("input"), check_count=asked.check_count)
    vocabulary = request.headers.get(VOCABULARY_HEADER)
    given = await decode_tokens(asked.state, inputs, vocabulary=vocabulary)
    call = dataclasses.replace(parse_call({**asked.body, "task": None}, given), kind=KINDS[task])
    call = dataclasses.replace(call, pool_factor=_pool_factor(asked.body))
    if call.kind is OutputKind.LABELS:
        call = dataclasses.replace(call, output_dtypes=(), dimensions=None)
    result = await embed(asked, call, is_list=is_list)
    if call.kind is OutputKind.LABELS:
        values = probabilities(result.vectors, model.spec.activation).astype(np.float32)
        result = dataclasses.replace(result, converted={encoding.dtype: values})
    vectors = in_byte_order(result.converted[encoding.dtype], is_big_endian=encoding.is_big_endian)
    by_input = result.by_input(vectors) if call.kind is OutputKind.TOKENS else vectors
    rows = await rows_json(by_input, as_base64=encoding.is_base64)
    items = [
        b'{"index":%d,"object":"pooling","data":%s}' % (index, row)
        for index, row in enumerate(rows)
    ]
    tokens = sum(result.input_tokens)
    content = b'{"id":"pool-%s","object":"list","created":%d,"model":%s,"data":[%s],"usage":%s}' % (
        uuid.uuid4().hex.encode(),
        int(time.time()),
        orjson.dumps(asked.model_name() or result.model),
        b",".join(items),
        orjson.dumps({"prompt_tokens": tokens, "total_tokens": tokens}),
    )
    return Response(content, headers=result_headers(result, call), media_type="application/json")


@router.post("/classify", **CLASSIFY_DOC)
async def classify(request: Request) -> Response:
    """Labels of texts, the likeliest with all probabilities."""
    asked = await open_as(request, OPENAI)
    asked.check_fields(CLASSIFY_FIELDS)
    model = await asked.model(OutputKind.LABELS)
    truncate, max_tokens = parse_limits(asked.body)
    texts, is_list = texts_field(asked.body, "input", check_count=asked.check_count)
    call = EmbedCall(
        texts,
        model=asked.model_name(),
        kind=OutputKind.LABELS,
        truncate=truncate,
        max_tokens=max_tokens,
    )
    result = await embed(asked, call, is_list=is_list)
    probs = probabilities(result.vectors, model.spec.activation)
    tokens = sum(result.input_tokens)
    data = [
        {
            "index": index,
            "label": model.spec.labels[int(row.argmax())],
            "probs": row.tolist(),
            "num_classes": len(row),
        }
        for index, row in enumerate(probs)
    ]
    content = {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": asked.model_name() or result.model,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    headers = result_headers(result, call)
    return Response(orjson.dumps(content), headers=headers, media_type="application/json")


def _pool_factor(body: Body) -> int:
    """How many token vectors become one.

    Raises:
        InputError: Not a positive integer.
    """
    factor = integer_field(body, "pool_factor")
    if factor is not None and factor < 1:
        raise InputError("'pool_factor' must be at least 1", param="pool_factor")
    return factor or 1


def default_task(spec: ModelSpec) -> str:
    """What a model is for, where a request does not say."""
    if OutputKind.LABELS in spec.kinds:
        return "classify"
    return "embed" if OutputKind.DENSE in spec.kinds else "token_embed"


@router.post("/score", **SCORE_DOC)
@router.post("/v1/score", include_in_schema=False)
async def score_route(request: Request) -> Response:
    """Scores of pairs, in input order; one text against many, or pair by pair."""
    asked = await open_as(request, OPENAI)
    asked.check_fields(SCORE_FIELDS)
    model = await asked.model(OutputKind.LABELS)
    truncate, max_tokens = parse_limits(asked.body)
    left, right = _pairs(asked, max_tokens)
    chosen = truncate or asked.state.service.limits.truncate
    scores = await score(asked, model, left, right, chosen)
    data: list[dict[str, Any]] = [
        {"index": index, "object": "score", "score": found}
        for index, found in enumerate(scores.values.tolist())
    ]
    content = {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": asked.model_name() or model.spec.name,
        "data": data,
        "usage": {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens},
    }
    return Response(orjson.dumps(content), headers=scores.headers, media_type="application/json")


def _pairs(asked: Asked, max_tokens: int | None) -> tuple[Texts, Texts]:
    """Both sides.

    Raises:
        InputError: They are missing, of other types, or of numbers that make no pairs.
    """
    first, second, left_role, right_role = _names(asked.body)
    check = asked.state.service.check_count
    left, left_is_list = texts_field(asked.body, first, check_count=check)
    right, right_is_list = texts_field(asked.body, second, check_count=check)
    if len(left) not in (1, len(right)):
        raise InputError(f"'{first}' must hold one text, or as many as '{second}'", param=first)
    check(len(left) + len(right))
    return (
        Texts(left, first, left_role, is_list=left_is_list, max_tokens=max_tokens),
        Texts(right, second, right_role, is_list=right_is_list, max_tokens=max_tokens),
    )


def _names(body: Body) -> tuple[str, str, str | None, str | None]:
    """Which spelling of pairs a body has."""
    for pair in PAIRS:
        if body.get(pair[0]) is not None and body.get(pair[1]) is not None:
            return pair
    raise InputError(
        "pairs must be given as 'text_1' and 'text_2', or 'queries' and 'documents'",
        param="text_1",
    )
